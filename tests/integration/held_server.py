"""Serves with an engine that holds every batch until a line comes on standard input; test_process.py runs it.

Usage: held_server.py BUNDLE KEYS_FILE
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.bundle import read_manifest
from models.preprocessing import Pixels
from service.engine import Prediction
from service.logs import configure_logs
from service.metrics import Metrics
from service.server import Server
from service.settings import Settings


class HeldEngine:
    """Says when it is busy; goes on when it is told to."""

    purifiers: tuple[str, ...] = ("fake",)
    device: str = "fake"
    precision: str = "float32"
    workers = 1

    def __init__(self, bundle: Path) -> None:
        self.manifest = read_manifest(bundle)

    def warm_up(self) -> None:
        """Needs none."""

    def close(self) -> None:
        """Holds nothing."""

    def classify(self, images: Sequence[Pixels]) -> list[Prediction]:
        sys.stdout.write("busy\n")
        sys.stdout.flush()
        sys.stdin.readline()
        return [Prediction(np.full(len(self.manifest.labels), 0.25, np.float32)) for _ in images]


if __name__ == "__main__":
    configure_logs()
    settings = Settings(port=0, keys_file=Path(sys.argv[2]))
    Server(settings, HeldEngine(Path(sys.argv[1])), Metrics()).run()
