"""The networks behind the engine: what goes through the device, and nothing of what is drawn, counted or decided."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.bundle import Bundle
from models.defenses import build_defense
from models.device import Placement, device_name, give_back_memory, send
from models.device_clock import device_clock
from models.preprocessing import Pixels
from models.recorded.networks import recorded_classifier, recorded_defense
from models.recorded.replay import ladder

PIXEL_MAX = 255
PROBES = 4
"""At least as many images as the engine sends to learn whether a purifier gives numbers, however small batches are."""


@dataclass(frozen=True, eq=False)
class Draws:
    """What was drawn for the images of a batch.

    Attributes:
        values: `(N, draws)`, as the defense gave them.
        purifiers: the names that they point at; empty where the defense has none.
    """

    values: NDArray[Any]
    purifiers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Inferred:
    """What came of one batch.

    Attributes:
        scores: `(N, classes)` float32: the probability of each class.
        purify_seconds: that the defense took on the device; 0 where there was none.
        classify_seconds: that the classifier took there.
    """

    scores: NDArray[np.float32]
    purify_seconds: float
    classify_seconds: float


class Networks(Protocol):
    """A classifier behind a defense, wherever they run; as many threads may ask at once as there are workers.

    Images are `(height, width, 3)` uint8 of the bundle's size.

    Attributes:
        device: that they run on, in words.
        precision: of their arithmetic.
    """

    device: str
    precision: str

    def warm_up(self, purifiers: tuple[str, ...], max_batch: int) -> None:
        """Brings them up if they are not, and sends the smallest and the largest batch through all of them.

        Args:
            purifiers: the names of those that are in use.
            max_batch: images of the largest batch.

        Raises:
            FloatingPointError: they give no numbers.
        """

    def infer(self, images: Sequence[Pixels], draws: Draws | None) -> Inferred:
        """Scores of images; undefended where nothing was drawn.

        Raises:
            torch.OutOfMemoryError: the batch does not fit the device.
        """

    def purify(self, images: Sequence[Pixels], draws: Draws) -> NDArray[np.bool_]:
        """Whether the defense makes finite numbers of each image: `(N,)`."""

    def close(self) -> None:
        """Gives back what they hold; nobody asks them any more."""


class LocalNetworks:
    """Those of a bundle in this process.

    Args:
        bundle: not to be used for anything else.
        defense: the name of what stands before the classifier.
        placement: where they run, and how precisely.
    """

    def __init__(self, bundle: Bundle, defense: str, placement: Placement) -> None:
        self.device = device_name(placement.device)
        self.precision: str = placement.precision
        self._size = bundle.manifest.preprocessing
        self._target = placement.device
        self._defense = build_defense(defense, bundle)
        self._purify = recorded_defense(self._defense, placement)
        self._classify = recorded_classifier(bundle.classifier, placement)

    def warm_up(self, purifiers: tuple[str, ...], max_batch: int) -> None:
        """See `Networks`. On a GPU it sends every size of batch that is recorded, so that no query waits for that.

        The largest come first: a recording can use memory that a larger one has freed, but not that of several smaller.
        """
        sizes = [*ladder(max(max_batch, PROBES))][::-1] if self._target.type == "cuda" else [1, max_batch]
        for count in sizes:
            images = [np.zeros((self._size.height, self._size.width, 3), np.uint8)] * count
            drawn = self._defense.draw(partial(_no_bytes, count)).numpy()
            for values in _warm_up_draws(drawn, len(purifiers)):
                inferred = self.infer(images, Draws(values, purifiers))
                if not np.isfinite(inferred.scores).all():
                    raise FloatingPointError("the networks give no finite scores in the warm-up")

    @torch.inference_mode()
    def infer(self, images: Sequence[Pixels], draws: Draws | None) -> Inferred:
        """See `Networks`."""
        clock = device_clock(self._target)
        seen = self._on_device(images)
        indices = None if draws is None else self._indices(draws)
        clock.mark()
        if indices is not None:
            seen = self._purify(seen, indices)
        clock.mark()
        logits = self._classify(seen)
        clock.mark()
        scores: NDArray[np.float32] = torch.softmax(logits.float(), dim=1).cpu().numpy()
        purify, classify = clock.seconds()  # only now, with the scores here, is the device done
        return Inferred(scores, purify if draws is not None else 0.0, classify)

    @torch.inference_mode()
    def purify(self, images: Sequence[Pixels], draws: Draws) -> NDArray[np.bool_]:
        """See `Networks`."""
        purified = self._purify(self._on_device(images), self._indices(draws))
        finite: NDArray[np.bool_] = purified.isfinite().flatten(1).all(1).cpu().numpy()
        return finite

    def close(self) -> None:
        """See `Networks`. Their memory is free now, however long whoever asked them is kept."""
        self._purify = self._classify = _closed
        if self._target.type == "cuda":
            give_back_memory()

    def _indices(self, draws: Draws) -> Tensor:
        """The draws as all purifiers are counted here; those of a defense without any are what they are."""
        values = torch.from_numpy(draws.values)
        if not draws.purifiers:
            return values
        return torch.tensor([self._defense.purifiers.index(name) for name in draws.purifiers])[values]

    def _on_device(self, images: Sequence[Pixels]) -> Tensor:
        pixels = send(torch.from_numpy(np.stack(images)), self._target)
        return pixels.permute(0, 3, 1, 2).float().div_(PIXEL_MAX)


def _warm_up_draws(drawn: NDArray[Any], purifiers: int) -> Iterator[NDArray[Any]]:
    """Each purifier alone, then all of them side by side, which goes another way on a GPU (`RecordedPuriDefense`)."""
    for index in range(max(1, purifiers)):
        yield np.full_like(drawn, index)
    if purifiers > 1:
        yield np.arange(drawn.size, dtype=drawn.dtype).reshape(drawn.shape) % purifiers


def _closed(*_asked: Tensor) -> Tensor:
    raise RuntimeError("these networks are closed")


def _no_bytes(rows: int, columns: int) -> Tensor:
    """What a defense draws from where it does not matter what it draws."""
    return torch.zeros((rows, columns), dtype=torch.uint8)
