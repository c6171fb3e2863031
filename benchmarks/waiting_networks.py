"""Networks that take the time of a GPU and no processor, in a gateway or held for several.

    python -m benchmarks.waiting_networks serve --port 8000
    python -m benchmarks.waiting_networks host --networks-socket networks.sock

Take the flags of `purigate serve` and `purigate networks`. What is left is what HTTP, the queue and the socket do.
"""

import sys
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.noop_engine import serve
from models.bundle import Bundle, read_bundle
from models.preprocessing import Pixels
from service.engine import TorchEngine
from service.logs import configure_logs
from service.metrics import Metrics
from service.network_host import NetworkHost
from service.network_shelf import Shelf
from service.network_socket import listen
from service.networks import Draws, Inferred
from service.randomness import fresh
from service.settings import HostSettings, Settings

BATCH_SECONDS = 1e-3
IMAGE_SECONDS = 3e-5
"""Together 2 ms for 32 images of 32x32 pixels, as a ResNet-18 behind its pool took on an H200."""


class WaitingNetworks:
    """Say the same of any image, after a while.

    Args:
        bundle: whose classes they tell apart.
    """

    device = "a wait"
    precision = "float32"

    def __init__(self, bundle: Bundle) -> None:
        self._classes = len(bundle.manifest.labels)

    def warm_up(self, purifiers: tuple[str, ...], max_batch: int) -> None:
        """Need none."""

    def infer(self, images: Sequence[Pixels], draws: Draws | None) -> Inferred:  # noqa: ARG002 - whatever was drawn
        """As many answers as there are images."""
        seconds = BATCH_SECONDS + IMAGE_SECONDS * len(images)
        time.sleep(seconds)
        return Inferred(np.full((len(images), self._classes), 1 / self._classes, np.float32), 0, seconds)

    def purify(self, images: Sequence[Pixels], draws: Draws) -> NDArray[np.bool_]:  # noqa: ARG002 - they purify nothing
        """Always."""
        return np.ones(len(images), np.bool_)

    def close(self) -> None:
        """Hold nothing."""


def engine(settings: Settings) -> TorchEngine:
    """A real engine before such networks."""
    bundle = read_bundle(settings.bundle)
    return TorchEngine(bundle, settings.defense, WaitingNetworks(bundle), settings.max_batch, fresh, Metrics())


def host() -> None:
    """Holds such networks until the process is ended."""
    configure_logs()
    settings = HostSettings(_cli_parse_args=sys.argv[1:])
    shelf = Shelf(settings.bundle, lambda bundle, _defense: WaitingNetworks(bundle))
    with listen(settings.networks_socket) as listener:
        NetworkHost(shelf, device_works=lambda: True, on_lost=lambda: None).serve(listener)


if __name__ == "__main__":
    if sys.argv.pop(1) == "host":
        host()
    else:
        serve(engine)
