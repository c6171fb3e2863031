"""The engine: draws for each query, asks the networks, counts, and takes out of the pool what gives no numbers."""

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Protocol

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.bundle import Bundle, Manifest
from models.defenses import Defense, build_defense
from models.preprocessing import Pixels
from service.metrics import Metrics
from service.networks import PIXEL_MAX, Draws, Networks
from service.randomness import Randomness
from service.workers import Workers

log = structlog.get_logger()

Scores = NDArray[np.float32]
"""`(classes,)` float32: the probability of each class."""

SMALLEST_POOL = 2


class PoolExhaustedError(Exception):
    """Too few purifiers are left for a draw between them to mean anything."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the engine says of one image.

    Attributes:
        scores: of every class.
        draw: the number in the bundle of the purifier of each patch, such as `3.0.11.7`; empty without a defense.
    """

    scores: Scores
    draw: str = ""


class Engine(Protocol):
    """What the service needs of an engine; tests bring small ones of their own.

    Attributes:
        manifest: of the bundle that is served.
        device: in words.
        precision: of the networks' arithmetic.
        workers: batches that it takes at once, each from a thread of its own.
    """

    manifest: Manifest
    device: str
    precision: str
    workers: int

    @property
    def purifiers(self) -> tuple[str, ...]:
        """The names of the purifiers that queries go through now."""

    def warm_up(self) -> None:
        """Runs everything once, so that the first query is as fast as the last; raises if anything fails."""

    def classify(self, images: Sequence[Pixels]) -> list[Prediction]:
        """What it says of each image, in order.

        Raises:
            PoolExhaustedError: it never will again.
        """

    def close(self) -> None:
        """Gives back what it holds; nobody asks it any more."""


class TorchEngine:
    """Purifies and classifies batches on one device; several threads may ask it at once.

    Args:
        bundle: what is served; not to be used for anything else.
        defense: the name of what stands before the classifier.
        networks: of this bundle and defense.
        max_batch: the largest batch that will come.
        randomness: of the defense's draws.
        metrics: where times and draws are counted.
        workers: the threads that will ask at once; sets how many threads torch has in this process for one operation.
            By default one will, and torch keeps its own number.
        shadow: answer undefended, and only count what the defense would have changed.
    """

    def __init__(
        self,
        bundle: Bundle,
        defense: str,
        networks: Networks,
        max_batch: int,
        randomness: Randomness,
        metrics: Metrics,
        *,
        workers: Workers | None = None,
        shadow: bool = False,
    ) -> None:
        self.manifest = bundle.manifest
        self.device = networks.device
        self.precision = networks.precision
        self.workers = workers.count if workers else 1
        if workers:
            torch.set_num_threads(workers.threads)
        self._max_batch = max_batch
        self._randomness = randomness
        self._metrics = metrics
        self._shadow = shadow
        self._networks = networks
        self._defense = build_defense(defense, bundle)
        self._removed: set[str] = set()
        self._removing = threading.Lock()
        self._numbers = {name: number for number, name in enumerate(self.purifiers)}
        for name in self.purifiers:
            metrics.purifier_selected.labels(purifier=name)
            metrics.purifiers_removed.labels(purifier=name)
            metrics.purifier_failures.labels(purifier=name)

    @property
    def purifiers(self) -> tuple[str, ...]:
        """The names of the purifiers that are in the pool now."""
        return self._defense.purifiers

    def warm_up(self) -> None:
        """Sends the smallest and the largest batch through every purifier and the classifier."""
        self._networks.warm_up(self.purifiers, self._max_batch)

    def close(self) -> None:
        """Gives back what the networks hold."""
        self._networks.close()

    def classify(self, images: Sequence[Pixels]) -> list[Prediction]:
        """What it says of each image; images are `(height, width, 3)` uint8 of the bundle's size.

        A batch that does not fit the device is tried once more in two halves. Queries that met a purifier that gives no
        numbers for them draw again among the others; it leaves the pool if it gives none for images of our own either.
        With fewer than two others their scores are no numbers.

        Raises:
            PoolExhaustedError: fewer than two purifiers are left.
        """
        try:
            return self._predict(images)
        except torch.OutOfMemoryError:
            log.warning("device_out_of_memory", queries=len(images))
            self._metrics.out_of_memory.inc()
        # Only here is the exception gone, and with it the frames that held the batch in the device's memory.
        torch.cuda.empty_cache()
        middle = (len(images) + 1) // 2
        halves = (images[:middle], images[middle:])
        return [prediction for half in halves if half for prediction in self._predict(half)]

    def _predict(self, images: Sequence[Pixels]) -> list[Prediction]:
        predictions = self._defended(images, self._defense)
        self._metrics.batch_size.observe(len(images))
        if not self._shadow:
            return predictions
        undefended = self._infer(images, None)
        defended = np.stack([one.scores for one in predictions])
        changed = np.argmax(undefended, axis=1) != np.argmax(defended, axis=1)
        self._metrics.prediction_changed.inc(int(np.count_nonzero(changed)))
        return [replace(one, scores=scores) for one, scores in zip(predictions, undefended, strict=True)]

    def _defended(self, images: Sequence[Pixels], defense: Defense) -> list[Prediction]:
        draws = self._draw(images, defense)
        scores = self._infer(images, Draws(draws.numpy(), defense.purifiers))
        self._count(draws, defense)
        names = self._names(draws, defense)
        predictions = [Prediction(one, name) for one, name in zip(scores, names, strict=True)]
        failed = np.flatnonzero(~np.isfinite(scores).all(axis=1)).tolist()
        blamed = self._blame([images[index] for index in failed], draws[failed], defense) if failed else {}
        for failing, rows in blamed.items():
            if not failing or len(defense.purifiers) - len(failing) < SMALLEST_POOL:
                continue  # nobody else could answer
            others = reduce(lambda fewer, name: fewer.without(name), failing, defense)
            indices = [failed[row] for row in rows]
            again = self._defended([images[index] for index in indices], others)
            for index, prediction in zip(indices, again, strict=True):
                predictions[index] = prediction
        return predictions

    def _blame(self, images: Sequence[Pixels], draws: Tensor, defense: Defense) -> dict[tuple[str, ...], list[int]]:
        """Which of the purifiers that an image drew give no numbers for it, and the rows of the images that have these.

        It is found for each image alone, so that the draws of one never depend on the images beside it. Purifiers that
        give none for images of our own either leave the pool.

        Raises:
            PoolExhaustedError: fewer than two are left in it.
        """
        failing: list[tuple[str, ...]] = [() for _ in images]
        for number, name in enumerate(defense.purifiers):
            drew = (draws == number).flatten(1).any(1).nonzero()[:, 0].tolist()
            if not drew:
                continue
            finite = self._purifies(name, [images[row] for row in drew], defense)
            spoiled = [row for row, fine in zip(drew, finite, strict=True) if not fine]
            if spoiled:
                self._note_failure(name, len(spoiled), defense)
            for row in spoiled:
                failing[row] += (name,)
        rows: dict[tuple[str, ...], list[int]] = {}
        for row, names in enumerate(failing):
            rows.setdefault(names, []).append(row)
        return rows

    def _note_failure(self, name: str, queries: int, defense: Defense) -> None:
        """Counts queries that a purifier gave no numbers for; it leaves the pool if our own images get none either."""
        self._metrics.purifier_failures.labels(purifier=name).inc(queries)
        if self._purifies(name, self._probes(), defense).all():
            log.warning("purifier_failed", purifier=name, queries=queries)
        else:
            self._remove(name)

    def _remove(self, name: str) -> None:
        with self._removing:
            if name not in self.purifiers:  # another batch met it at the same time
                return
            if name not in self._removed:  # of the last two, one stays in the pool that is used up
                self._removed.add(name)
                log.error("purifier_removed", purifier=name, left=len(self.purifiers) - 1)
                self._metrics.purifiers_removed.labels(purifier=name).inc()
            if len(self.purifiers) <= SMALLEST_POOL:
                raise PoolExhaustedError(f"{name} gives no numbers and fewer than {SMALLEST_POOL} others are left")
            self._defense = self._defense.without(name)

    def _probes(self) -> list[Pixels]:
        """Images that no client can choose: black, white, and noise."""
        size = self.manifest.preprocessing
        shape = (size.height, size.width, 3)
        noise = np.random.default_rng(0).integers(0, PIXEL_MAX, shape, np.uint8, endpoint=True)
        return [np.zeros(shape, np.uint8), np.full(shape, PIXEL_MAX, np.uint8), noise]

    def _purifies(self, name: str, images: Sequence[Pixels], defense: Defense) -> NDArray[np.bool_]:
        """Whether a purifier makes finite numbers of all patches of each image: `(N,)`."""
        draws = torch.full_like(self._draw(images, defense), defense.purifiers.index(name))
        return self._networks.purify(images, Draws(draws.numpy(), defense.purifiers))

    def _count(self, draws: Tensor, defense: Defense) -> None:
        if defense.purifiers:
            counts = torch.bincount(draws.flatten(), minlength=len(defense.purifiers)).tolist()
            for name, count in zip(defense.purifiers, counts, strict=True):
                self._metrics.purifier_selected.labels(purifier=name).inc(count)

    def _names(self, draws: Tensor, defense: Defense) -> list[str]:
        """The `draw` of each prediction."""
        if not defense.purifiers:  # what a baseline draws, if anything, is noise and not purifiers
            return [""] * len(draws)
        numbers = [str(self._numbers[name]) for name in defense.purifiers]
        return [".".join([numbers[index] for index in draw]) for draw in draws.tolist()]

    def _draw(self, images: Sequence[Pixels], defense: Defense) -> Tensor:
        turns = itertools.count()

        def random_bytes(columns: int) -> Tensor:
            drawn = bytearray(self._randomness(images, columns, next(turns)))
            rows = (len(images), columns)
            return torch.frombuffer(drawn, dtype=torch.uint8).view(rows) if drawn else torch.empty(rows)

        return defense.draw(random_bytes)

    def _infer(self, images: Sequence[Pixels], draws: Draws | None) -> NDArray[np.float32]:
        """Scores `(N, classes)`; undefended without draws."""
        inferred = self._networks.infer(images, draws)
        if draws is not None:
            self._spent("purify", inferred.purify_seconds, len(images))
        self._spent("classify", inferred.classify_seconds, len(images))
        return inferred.scores

    def _spent(self, stage: str, seconds: float, queries: int) -> None:
        """Counts the time of a batch in a stage; each of its queries spends all of it, and of the device its share."""
        self._metrics.device_seconds.labels(stage=stage).inc(seconds / self.workers)
        duration = self._metrics.stage_duration.labels(stage=stage)
        for _ in range(queries):
            duration.observe(seconds)
