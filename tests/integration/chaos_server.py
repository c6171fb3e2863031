"""Serves with an engine that fails once for every SIGUSR1; test_chaos.py runs it.

Usage: chaos_server.py BUNDLE KEYS_FILE REDIS_URL
"""

import signal
import sys
import threading
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

BATCH_SECONDS = 0.01


class FragileEngine:
    """Takes a moment for a batch, and fails when it is told to."""

    purifiers: tuple[str, ...] = ("fake",)
    device: str = "fake"
    precision: str = "float32"
    workers = 1

    def __init__(self, bundle: Path) -> None:
        self.manifest = read_manifest(bundle)
        self.fail = threading.Event()
        self._never = threading.Event()

    def warm_up(self) -> None:
        """Needs none."""

    def close(self) -> None:
        """Holds nothing."""

    def classify(self, images: Sequence[Pixels]) -> list[Prediction]:
        self._never.wait(BATCH_SECONDS)
        if self.fail.is_set():
            self.fail.clear()
            raise RuntimeError("CUDA error: an illegal memory access")
        return [Prediction(np.full(len(self.manifest.labels), 0.25, np.float32)) for _ in images]


if __name__ == "__main__":
    configure_logs()
    settings = Settings(port=0, keys_file=Path(sys.argv[2]), redis_url=sys.argv[3], redis_timeout_ms=10_000)
    engine = FragileEngine(Path(sys.argv[1]))
    signal.signal(signal.SIGUSR1, lambda _signal, _frame: engine.fail.set())
    Server(settings, engine, Metrics()).run()
