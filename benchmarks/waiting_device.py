"""Serves with a device that takes a fixed time for each image and no processor: as a GPU is to the service.

    python -m benchmarks.waiting_device --port 8000

Takes the flags of `purigate serve`.
"""

import sys
import time
from collections.abc import Sequence

import numpy as np

from models.bundle import read_manifest
from models.preprocessing import Pixels
from service.engine import Prediction
from service.logs import configure_logs
from service.metrics import Metrics
from service.server import Server
from service.settings import Settings

SECONDS_PER_IMAGE = 0.006


class WaitingEngine:
    """Answers any image alike, after a while."""

    purifiers: tuple[str, ...] = ("none",)
    device: str = "a wait"
    precision: str = "float32"
    workers = 1

    def __init__(self, settings: Settings) -> None:
        self.manifest = read_manifest(settings.bundle)

    def warm_up(self) -> None:
        """Needs none."""

    def classify(self, images: Sequence[Pixels]) -> list[Prediction]:
        """As many answers as there are images."""
        time.sleep(SECONDS_PER_IMAGE * len(images))
        classes = len(self.manifest.labels)
        return [Prediction(np.full(classes, 1 / classes, np.float32)) for _ in images]


if __name__ == "__main__":
    configure_logs()
    settings = Settings(_cli_parse_args=sys.argv[1:])
    Server(settings, WaitingEngine(settings), Metrics()).run()
