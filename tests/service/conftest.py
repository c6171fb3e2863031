"""An engine that answers from the pixels, can be held, and can be broken."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import structlog

from models.bundle import Manifest, read_manifest
from models.preprocessing import Pixels
from service.engine import Prediction

PATIENCE_SECONDS = 30


class FakeEngine:
    """The score of the first class is the red of the first pixel; that of the second is the rest.

    Attributes:
        batches: what it was given so far.
        busy: set as soon as it has a batch.
        free: cleared, it holds whatever batch it has.
        warm: cleared, it holds its warm-up.
        fault, warm_up_fault: raised, if there is one.
        warm_ups: how many have ended, well or badly.
        on_batch: called with every batch, before it is answered.
    """

    purifiers: tuple[str, ...] = ("fake",)
    device: str = "fake"
    precision: str = "float32"
    workers = 1

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.batches: list[list[Pixels]] = []
        self.busy = threading.Event()
        self.free = threading.Event()
        self.free.set()
        self.warm = threading.Event()
        self.warm.set()
        self.fault: Exception | None = None
        self.warm_up_fault: Exception | None = None
        self.warm_ups = 0
        self.is_closed = False
        self.on_batch: Callable[[], None] = lambda: None

    def warm_up(self) -> None:
        assert self.warm.wait(PATIENCE_SECONDS)
        self.warm_ups += 1
        if self.warm_up_fault:
            raise self.warm_up_fault

    def close(self) -> None:
        """Holds nothing; notes that it was closed."""
        self.is_closed = True

    def classify(self, images: Sequence[Pixels]) -> list[Prediction]:
        self.batches.append(list(images))
        self.busy.set()
        self.on_batch()
        assert self.free.wait(PATIENCE_SECONDS)
        if self.fault:
            raise self.fault
        return [self._prediction(image) for image in images]

    def _prediction(self, image: Pixels) -> Prediction:
        scores = np.zeros(len(self.manifest.labels), np.float32)
        scores[0] = image[0, 0, 0] / 255
        scores[1] = 1 - scores[0]
        return Prediction(scores)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Long tracebacks are meant for a terminal; test_logs.py looks at what a deployment writes."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture(scope="session")
def manifest(bundle_folder: Path) -> Manifest:
    return read_manifest(bundle_folder)


@pytest.fixture
def engine(manifest: Manifest) -> Iterator[FakeEngine]:
    engine = FakeEngine(manifest)
    yield engine
    engine.free.set()
    engine.warm.set()
