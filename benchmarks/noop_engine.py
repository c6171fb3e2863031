"""Serves with an engine that does nothing: what is left is HTTP, decoding and the queue.

    python -m benchmarks.noop_engine --port 8000

Takes the flags of `purigate serve`.
"""

import gc
import sys
from collections.abc import Callable, Sequence

import numpy as np

from models.bundle import read_manifest
from models.preprocessing import Pixels
from service.engine import Engine, Prediction
from service.logs import configure_logs
from service.metrics import Metrics
from service.server import Server
from service.settings import Settings


class NoOpEngine:
    """Answers any image alike, at once."""

    purifiers: tuple[str, ...] = ("none",)
    device: str = "none"
    precision: str = "float32"
    workers = 1

    def __init__(self, settings: Settings) -> None:
        self.manifest = read_manifest(settings.bundle)

    def warm_up(self) -> None:
        """Needs none."""

    def close(self) -> None:
        """Holds nothing."""

    def classify(self, images: Sequence[Pixels]) -> list[Prediction]:
        """As many answers as there are images."""
        classes = len(self.manifest.labels)
        return [Prediction(np.full(classes, 1 / classes, np.float32)) for _ in images]


def serve(make: Callable[[Settings], Engine]) -> None:
    """Serves what `make` gives, with the settings that the command line says."""
    configure_logs()
    settings = Settings(_cli_parse_args=sys.argv[1:])
    gc.freeze()  # as `purigate serve` does
    Server(settings, make(settings), Metrics()).run()


if __name__ == "__main__":
    serve(NoOpEngine)
