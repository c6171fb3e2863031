"""Holds networks on a device for several gateways of this machine, which ask through a socket.

One Python process does HTTP and decoding for about a thousand small images a second, and a GPU classifies tens of
thousands. So there are several gateways, each whole, and one process that owns the device.
"""

import gc
import os
import signal
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
import torch

from models.bundle import Bundle, BundleError, read_bundle
from models.defenses import build_defense
from models.device import choose_placement, give_back_memory
from service.network_calls import BATCH_SECONDS, BATCHES, TOLD_APART, Answer, answer_of
from service.networks import LocalNetworks, Networks
from service.settings import HostSettings
from service.shared_networks import Held, Wanted
from service.workers import choose_workers

log = structlog.get_logger()

BACKLOG = 128
OURS_ALONE = 0o177
"""The mask under which the socket is made: whoever can write to it can do what this process can."""
CALLS = BATCHES | {"warm_up"}
WATCH_SECONDS = 1.0
"""Between two looks at the batch that is under way."""
LEAVING_SECONDS = 5.0
"""That gateways have to leave once they have drained, and a last batch to be done."""


class SocketError(Exception):
    """The socket cannot be made, or another process listens at it."""


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

    def take(self, wanted: Wanted, bundle: Bundle | None = None) -> Networks:
        """The networks that are wanted; they stay until they are given back.

        Args:
            wanted: which.
            bundle: that has them, if it was read already.

        Raises:
            BundleError: the bundle in the folder cannot be read, or has others.
        """
        with self._changing:
            if wanted not in self._networks:
                self._drop_unused()  # before the device has to hold these too
                self._networks[wanted] = self._load(wanted, bundle)
                self._users[wanted] = 0
            self._users[wanted] += 1
            self._last = wanted
            return self._networks[wanted]

    def find(self, wanted: Wanted) -> Networks:
        """Networks that were taken."""
        return self._networks[wanted]

    def give_back(self, wanted: Wanted) -> None:
        """Drops them if nobody else has them, unless they are the last that were asked for: one may begin again."""
        with self._changing:
            self._users[wanted] -= 1
            self._drop_unused(but=self._last)

    def _load(self, wanted: Wanted, bundle: Bundle | None) -> Networks:
        try:
            bundle = bundle or read_bundle(self._folder)
        except BundleError as error:  # a gateway may tell it to a client, who need not know where it lies
            raise BundleError(str(error).replace(f"{self._folder}/", "")) from error
        if bundle.manifest.networks != wanted.networks:
            raise BundleError("whoever holds the networks finds another bundle in its folder now")
        networks = self._make(bundle, wanted.defense)
        told = bundle.manifest
        log.info("networks_loaded", bundle=told.name, version=told.version, defense=wanted.defense)
        return networks

    def _drop_unused(self, but: Wanted | None = None) -> None:
        unused = [one for one, users in self._users.items() if not users and one != but]
        for one in unused:
            del self._users[one], self._networks[one]
            log.info("networks_dropped", defense=one.defense)
        if unused:
            give_back_memory()


class NetworkHost:
    """Answers gateways, each in a thread; their batches take turns, so that each one's time on the device is its own.

    Args:
        shelf: has the networks.
        device_works: whether the device still does anything.
        on_lost: called if it does not, or a batch hangs: only a new process can use it again.
        batch_seconds: after which a batch hangs.

    Attributes:
        lost: whether that was called.
    """

    def __init__(
        self,
        shelf: Shelf,
        device_works: Callable[[], bool],
        on_lost: Callable[[], None],
        batch_seconds: float = BATCH_SECONDS,
    ) -> None:
        self.lost = False
        self._shelf = shelf
        self._batch_seconds = batch_seconds
        self._batch_began: float | None = None
        self._device_works = device_works
        self._on_lost = on_lost
        self._turn = threading.Lock()
        self._warming_up = threading.Lock()
        self._gateways = 0
        self._calls = 0
        self._changed = threading.Condition()
        self._stopping = False

    def load(self, bundle: Bundle, defense: str, max_batch: int) -> None:
        """Loads what gateways are expected to ask for, and warms it up.

        Raises:
            FloatingPointError: the networks give no numbers.
        """
        wanted = Wanted(bundle.manifest.networks, defense)
        networks = self._shelf.take(wanted, bundle)
        networks.warm_up(build_defense(defense, bundle).purifiers, max_batch)
        self._shelf.give_back(wanted)

    def serve(self, listener: Listener) -> None:
        """Takes gateways until the process is told to stop, and watches their batches."""
        threading.Thread(target=self.watch, name="watch", daemon=True).start()
        while True:
            self.admit(listener.accept())

    def watch(self) -> None:
        """Waits until a batch hangs, which no error would tell of; then the device is lost."""
        while not self.lost:
            began = self._batch_began
            if began is not None and time.monotonic() - began > self._batch_seconds:
                self._lose(f"a batch took more than {self._batch_seconds:g} s")
            time.sleep(min(WATCH_SECONDS, self._batch_seconds))

    def admit(self, pipe: Connection) -> None:
        """Answers a gateway from now on, in a thread."""
        with self._changed:
            self._gateways += 1
        threading.Thread(target=self._serve, args=(pipe,), name="gateway", daemon=True).start()

    def stop(self, seconds: float) -> None:
        """Answers those that are here until they have left, or for so many seconds, and then no more.

        Gateways that were told to stop at the same time drain first, and need the networks for that.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._gateways or self.lost, seconds)
            self._stopping = True
            self._changed.wait_for(lambda: not self._calls, LEAVING_SECONDS)

    def _serve(self, pipe: Connection) -> None:
        """The whole stay of a gateway."""
        try:
            with pipe, suppress(EOFError, OSError):
                wanted: Wanted = pipe.recv()
                answer = answer_of(partial(self._lend, wanted))
                try:
                    self._send(pipe, answer)
                    while not answer[0] and self._answer(pipe, wanted, *pipe.recv()):
                        pass
                finally:
                    if not answer[0]:
                        self._shelf.give_back(wanted)
        finally:
            with self._changed:
                self._gateways -= 1
                self._changed.notify_all()

    def _lend(self, wanted: Wanted) -> Held:
        networks = self._shelf.take(wanted)
        return Held(networks.device, networks.precision)

    def _answer(self, pipe: Connection, wanted: Wanted, method: str, arguments: tuple[Any, ...]) -> bool:
        """Answers a call; whether another may follow."""
        with self._changed:
            if self._stopping or method not in CALLS:
                return False
            self._calls += 1
        try:
            self._send(pipe, answer_of(partial(self._call, wanted, method, arguments)))
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()
        return True

    def _call(self, wanted: Wanted, method: str, arguments: tuple[Any, ...]) -> Any:
        ask = partial(getattr(self._shelf.find(wanted), method), *arguments)
        # A warm-up may compile for long, and batches go on beside it; two of them could not record graphs at once.
        if method not in BATCHES:
            with self._warming_up:
                return ask()
        with self._turn:
            self._batch_began = time.monotonic()
            try:
                return ask()
            finally:
                self._batch_began = None

    def _send(self, pipe: Connection, answer: Answer) -> None:
        """Sends an answer, and looks at the device if it is an error of an unknown kind."""
        try:
            pipe.send(answer)
        finally:
            if answer[0] and answer[0] not in TOLD_APART:
                self._check_device()

    def _check_device(self) -> None:
        """A fault may be of one batch or of the device, and what it held there is then lost for every batch."""
        if not self.lost and not self._device_works():
            self._lose("it computes nothing after a batch failed")

    def _lose(self, reason: str) -> None:
        log.error("device_lost", reason=reason)
        with self._changed:
            self.lost = True
            self._changed.notify_all()
        self._on_lost()


def host(settings: HostSettings) -> int:
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


def listen(path: Path) -> Listener:
    """Listens at a socket that only this user can write to, in place of one that was left behind.

    Raises:
        SocketError: see there.
    """
    try:
        if path.exists():
            _remove_left_behind(path)
        before = os.umask(OURS_ALONE)
        try:
            return Listener(str(path), "AF_UNIX", BACKLOG)
        finally:
            os.umask(before)
    except OSError as error:
        raise SocketError(f"{path}: {error.strerror or error}") from error


def _remove_left_behind(path: Path) -> None:
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise SocketError(f"{path}: is no socket")
    with suppress(OSError):
        Client(str(path), "AF_UNIX").close()
        raise SocketError(f"{path}: another process holds networks here")
    path.unlink()


def _works(device: torch.device) -> bool:
    try:
        return float(torch.ones(1, device=device).sum()) == 1
    except RuntimeError:
        return False


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise Stopped
