"""Serves with a device that takes a fixed time for each image and no processor: as a GPU is to the service.

    python -m benchmarks.waiting_device --port 8000

Takes the flags of `purigate serve`.
"""

import time
from collections.abc import Sequence

from benchmarks.noop_engine import NoOpEngine, serve
from models.preprocessing import Pixels
from service.engine import Prediction

SECONDS_PER_IMAGE = 0.006


class WaitingEngine(NoOpEngine):
    """Answers any image alike, after a while."""

    device: str = "a wait"

    def classify(self, images: Sequence[Pixels]) -> list[Prediction]:
        """As many answers as there are images."""
        time.sleep(SECONDS_PER_IMAGE * len(images))
        return super().classify(images)


if __name__ == "__main__":
    serve(WaitingEngine)
