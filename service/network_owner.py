"""The process that owns a device and answers the gateways that share its networks, from its start to its end."""

import gc
import os
import signal
from contextlib import suppress
from functools import partial
from types import FrameType

import structlog
import torch

from models.bundle import read_bundle
from models.device import choose_placement
from service.network_host import LEAVING_SECONDS, NetworkHost
from service.network_shelf import Shelf
from service.network_socket import listen
from service.networks import LocalNetworks
from service.settings import HostSettings
from service.workers import choose_workers

log = structlog.get_logger()


class Stopped(BaseException):
    """The process is told to stop."""


def own_device(settings: HostSettings) -> int:
    """Holds networks until it is told to stop; gives the exit status.

    Raises:
        SocketError: see there.
        models.bundle.BundleError: the bundle cannot be served.
        models.device.PlacementError: the device does not exist, or cannot compute in the precision.
        FloatingPointError, RuntimeError: its networks fail.
    """
    gc.freeze()  # as the gateway does
    placement = choose_placement(settings.device, settings.precision)
    torch.set_num_threads(choose_workers(1, placement.device.type).threads)
    with listen(settings.networks_socket) as listener:  # gateways may ask already, and wait
        shelf = Shelf(settings.bundle, lambda bundle, defense: LocalNetworks(bundle, defense, placement))
        works = partial(_works, placement.device)
        networks = NetworkHost(shelf, works, partial(os.kill, os.getpid(), signal.SIGTERM))
        networks.load(read_bundle(settings.bundle), settings.defense, settings.max_batch)
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, _stop)
        log.info("networks_ready", socket=str(settings.networks_socket))
        with suppress(Stopped):
            networks.serve(listener)
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, signal.SIG_DFL)
    networks.stop(settings.drain_timeout_ms / 1000 + LEAVING_SECONDS)
    return int(networks.lost)


def _works(device: torch.device) -> bool:
    try:
        return float(torch.ones(1, device=device).sum()) == 1
    except RuntimeError:
        return False


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise Stopped
