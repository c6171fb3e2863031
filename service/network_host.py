"""Answers several gateways of this machine from the networks that one process holds.

One Python process does HTTP and decoding for about a thousand small images a second, and a GPU classifies tens of
thousands. So there are several gateways, each whole, and one process that owns the device.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, Listener
from typing import Any

import structlog

from models.bundle import Bundle
from models.defenses import build_defense
from service.network_calls import BATCH_SECONDS, BATCHES, TOLD_APART, Answer, answer_of
from service.network_shelf import Shelf
from service.shared_networks import Held, Wanted

log = structlog.get_logger()

CALLS = BATCHES | {"warm_up"}
WATCH_SECONDS = 1.0
"""Between two looks at the batch that is under way."""
LEAVING_SECONDS = 5.0
"""That gateways have to leave once they have drained, and a last batch to be done."""


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
