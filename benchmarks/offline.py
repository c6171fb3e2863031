"""The engine of the gateway without the gateway: a loop over whole batches of decoded images, in a process of its own.

The same engine on the same batches from as many threads as when it is served, so the same networks in the same
precision. The images are decoded before: what decoding costs counts against the service.
"""

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from multiprocessing.managers import BaseManager
from typing import Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from benchmarks.systems import Served
from benchmarks.termination import ending_on_sigterm
from service.engine import Engine
from service.images import ImageDecoder
from service.loading import load_engine
from service.metrics import Metrics
from service.settings import Settings

Expected = tuple[int, float, float]
"""The index of the best class, its score, and the score of the next best."""


class Computing(BaseModel):
    """What the engine computes with.

    Attributes:
        bundle: its name and version.
        device: in words.
        precision: of the networks' arithmetic.
        workers: batches at once.
        threads: of PyTorch on the processors, for each.
        max_batch: most images of a batch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    device: str
    precision: str
    workers: int = 1
    threads: int
    max_batch: int


class Offline(Protocol):
    """The engines of a bundle, each made when it is first needed."""

    def computing(self) -> Computing:
        """What they compute with."""

    def rate(self, defense: str, seconds: float, batch: int | None = None) -> tuple[int, float]:
        """How many images a loop of so many seconds took behind a defense, and how many in a second.

        Args:
            defense: its name.
            seconds: of the loop.
            batch: images of one; the most that the service takes by default.
        """

    def told(self) -> list[Expected]:
        """What the bare classifier says of each image."""


class Engines:
    """An `Offline`.

    Args:
        served: the bundle, the device and the largest batch.
        contents: the images, as files.
        workers: batches at once; as the service chooses them by default.
    """

    def __init__(self, served: Served, contents: list[bytes], workers: int | None = None) -> None:
        self._settings = Settings(
            bundle=served.bundle,
            device=served.device,
            precision=served.precision,
            max_batch=served.max_batch,
            workers=workers,
        )
        self._engines: dict[str, Engine] = {}
        manifest = self._engine("none").manifest
        decoder = ImageDecoder(manifest.preprocessing, self._settings.max_pixels)
        self._images = [decoder.decode(content) for content in contents]

    def computing(self) -> Computing:
        """What they compute with."""
        engine = self._engine("none")
        return Computing(
            bundle=f"{engine.manifest.name} {engine.manifest.version}",
            device=engine.device,
            precision=engine.precision,
            workers=engine.workers,
            threads=torch.get_num_threads(),
            max_batch=self._settings.max_batch,
        )

    def rate(self, defense: str, seconds: float, batch: int | None = None) -> tuple[int, float]:
        """How many images a loop of so many seconds took behind a defense, and how many in a second."""
        engine, size = self._engine(defense), batch or self._settings.max_batch
        self._loop(engine, size, 0)
        with ThreadPoolExecutor(engine.workers) as workers:
            loops = [workers.submit(self._loop, engine, size, seconds) for _ in range(engine.workers)]
            taken, rates = zip(*(loop.result() for loop in loops), strict=True)
        return sum(taken), sum(rates)

    def _loop(self, engine: Engine, size: int, seconds: float) -> tuple[int, float]:
        """Of one worker; at least one batch."""
        turns = cycle(self._images)
        begin = end = time.perf_counter()
        taken = 0
        while not taken or end - begin < seconds:
            taken += len(engine.classify(list(islice(turns, size))))
            end = time.perf_counter()
        return taken, taken / (end - begin)

    def told(self) -> list[Expected]:
        """What the bare classifier says of each image."""
        engine, size = self._engine("none"), self._settings.max_batch
        batches = (self._images[begin : begin + size] for begin in range(0, len(self._images), size))
        scores = (one.scores for batch in batches for one in engine.classify(batch))
        return [(int(np.argmax(one)), float(one.max()), float(np.sort(one)[-2:][0])) for one in scores]

    def _engine(self, defense: str) -> Engine:
        if defense not in self._engines:
            engine = load_engine(self._settings.model_copy(update={"defense": defense}), Metrics())
            engine.warm_up()
            self._engines[defense] = engine
        return self._engines[defense]


class _Process(BaseManager):
    """Holds the engines."""


_Process.register("Engines", Engines)


@contextmanager
def running_offline(served: Served, contents: list[bytes], workers: int | None = None) -> Iterator[Offline]:
    """Engines in a process that ends with the context."""
    with ending_on_sigterm(), _Process(ctx=multiprocessing.get_context("spawn")) as process:
        engines: Offline = process.Engines(  # type: ignore[attr-defined]  # registered above
            served, contents, workers
        )
        yield engines
