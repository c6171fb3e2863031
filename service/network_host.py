"""Holds networks on a device for several gateways of this machine, which ask through a socket.

One Python process does HTTP and decoding for about a thousand small images a second, and a GPU classifies tens of
thousands. So there are several gateways, each whole, and one process that owns the device.
"""

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
import torch

from models.bundle import Bundle, BundleError, read_bundle
from models.device import choose_placement
from service.network_calls import TOLD_APART, answer_of
from service.networks import LocalNetworks, Networks
from service.settings import HostSettings
from service.shared_networks import Held, Wanted
from service.workers import choose_workers

log = structlog.get_logger()

BACKLOG = 128
OURS_ALONE = 0o177
"""The mask under which the socket is made: whoever can write to it can do what this process can."""
BATCHES = frozenset({"infer", "purify"})
CALLS = BATCHES | {"warm_up"}
STOP_SECONDS = 20.0
"""For the batches that are under way when it is told to stop."""


class SocketTakenError(Exception):
    """Another process listens at the socket, or something that is no socket lies there."""


class Stopped(BaseException):
    """The process is told to stop."""


class Shelf:
    """The networks that gateways use, and those that were asked for last.

    Args:
        folder: of the bundle; it is read again whenever other networks are asked for.
        make: gives the networks of a bundle behind the defense of a name.
    """

    def __init__(self, folder: Path, make: Callable[[Bundle, str], Networks]) -> None:
        self._folder = folder
        self._make = make
        self._changing = threading.Lock()
        self._networks: dict[Wanted, Networks] = {}
        self._users: dict[Wanted, int] = {}
        self._last: Wanted | None = None

    @contextmanager
    def lend(self, wanted: Wanted, bundle: Bundle | None = None) -> Iterator[Networks]:
        """The networks that are wanted, for as long as the context lasts.

        Args:
            wanted: which.
            bundle: that has them, if it was read already.

        Raises:
            BundleError: the bundle in the folder cannot be read, or has others.
        """
        with self._changing:
            if wanted not in self._networks:
                self._networks[wanted] = self._load(wanted, bundle or read_bundle(self._folder))
            networks = self._networks[wanted]
            self._users[wanted] = self._users.get(wanted, 0) + 1
            self._last = wanted
            self._clear()
        try:
            yield networks
        finally:
            with self._changing:
                self._users[wanted] -= 1
                self._clear()

    def _load(self, wanted: Wanted, bundle: Bundle) -> Networks:
        if bundle.manifest.networks != wanted.networks:
            raise BundleError("whoever holds the networks finds another bundle in its folder now")
        networks = self._make(bundle, wanted.defense)
        told = bundle.manifest
        log.info("networks_loaded", bundle=told.name, version=told.version, defense=wanted.defense)
        return networks

    def _clear(self) -> None:
        """Drops what nobody uses, except what a gateway that begins again will want."""
        unused = [one for one, users in self._users.items() if not users and one != self._last]
        for one in unused:
            del self._users[one], self._networks[one]
            log.info("networks_dropped", defense=one.defense)
        if unused:
            torch.cuda.empty_cache()


class NetworkHost:
    """Answers gateways, each in a thread; their batches take turns, so that each one's time on the device is its own.

    Args:
        shelf: has the networks.
        device_works: whether the device still does anything.
        on_lost: called if it does not: only a new process can use it again.

    Attributes:
        lost: whether that was called.
    """

    def __init__(self, shelf: Shelf, device_works: Callable[[], bool], on_lost: Callable[[], None]) -> None:
        self.lost = False
        self._shelf = shelf
        self._device_works = device_works
        self._on_lost = on_lost
        self._turn = threading.Lock()
        self._calls = 0
        self._calling = threading.Condition()
        self._stopping = False

    def load(self, bundle: Bundle, defense: str, max_batch: int) -> None:
        """Loads what gateways are expected to ask for, and warms it up.

        Raises:
            FloatingPointError: the networks give no numbers.
        """
        with self._shelf.lend(Wanted(bundle.manifest.networks, defense), bundle) as networks:
            purifiers = tuple(bundle.purifiers) if defense == "puridefense" else ()
            networks.warm_up(purifiers, max_batch)

    def serve(self, listener: Listener) -> None:
        """Takes gateways until the process is told to stop."""
        while True:
            self.admit(listener.accept())

    def admit(self, pipe: Connection) -> None:
        """Answers a gateway from now on, in a thread."""
        threading.Thread(target=self._serve, args=(pipe,), name="gateway", daemon=True).start()

    def stop(self, seconds: float) -> None:
        """Begins no call any more, and waits for those under way."""
        with self._calling:
            self._stopping = True
            self._calling.wait_for(lambda: not self._calls, seconds)

    def _serve(self, pipe: Connection) -> None:
        """The whole stay of a gateway."""
        lent: list[Networks] = []
        with pipe, suppress(EOFError, OSError), ExitStack() as stay:
            wanted: Wanted = pipe.recv()

            def lend() -> Held:
                lent.append(stay.enter_context(self._shelf.lend(wanted)))
                return Held(lent[0].device, lent[0].precision)

            pipe.send(answer_of(lend))
            while lent and self._answer(pipe, lent[0], *pipe.recv()):
                pass

    def _answer(self, pipe: Connection, networks: Networks, method: str, arguments: tuple[Any, ...]) -> bool:
        """Answers a call; whether another may follow."""
        with self._calling:
            if self._stopping or method not in CALLS:
                return False
            self._calls += 1
        try:
            answer = answer_of(partial(self._call, networks, method, arguments))
            pipe.send(answer)
            if answer[0] and answer[0] not in TOLD_APART:
                self._check_device()
        finally:
            with self._calling:
                self._calls -= 1
                self._calling.notify_all()
        return True

    def _call(self, networks: Networks, method: str, arguments: tuple[Any, ...]) -> Any:
        call = partial(getattr(networks, method), *arguments)
        if method not in BATCHES:  # a warm-up may compile for long, and holds up nobody
            return call()
        with self._turn:
            return call()

    def _check_device(self) -> None:
        """A fault may be of one batch or of the device, and what it held there is then lost for every batch."""
        if not self.lost and not self._device_works():
            self.lost = True
            log.error("device_lost")
            self._on_lost()


def host(settings: HostSettings) -> int:
    """Holds networks until it is told to stop; gives the exit status.

    Raises:
        SocketTakenError: see there.
        OSError: the socket cannot be made.
        models.bundle.BundleError: the bundle cannot be served.
        models.device.DeviceMissingError: the device does not exist.
        FloatingPointError: the networks give no numbers.
    """
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
    networks.stop(STOP_SECONDS)
    return int(networks.lost)


def listen(path: Path) -> Listener:
    """Listens at a socket that only this user can write to, in place of one that was left behind.

    Raises:
        SocketTakenError: see there.
        OSError: it cannot be made.
    """
    if path.exists():
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise SocketTakenError(f"{path}: is no socket")
        with suppress(OSError):
            Client(str(path), "AF_UNIX").close()
            raise SocketTakenError(f"{path}: another process holds networks here")
        path.unlink()
    before = os.umask(OURS_ALONE)
    try:
        return Listener(str(path), "AF_UNIX", BACKLOG)
    finally:
        os.umask(before)


def _works(device: torch.device) -> bool:
    try:
        return float(torch.ones(1, device=device).sum()) == 1
    except RuntimeError:
        return False


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise Stopped
