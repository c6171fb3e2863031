"""Calls of networks that are in another process: what goes through a pipe, and what it means.

A request is the name of a method and its arguments, an answer is what came of it. Both are pickled, so whoever can
write to the pipe can do what its other end can.
"""

import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch

from models.bundle import BundleError
from models.device import PlacementError

Answer = tuple[str | None, Any, str]
"""The kind of an error, its message and its traceback; or no kind, and what was asked for."""
TOLD_APART: dict[str, type[Exception]] = {
    error.__name__: error for error in (torch.OutOfMemoryError, FloatingPointError, BundleError, PlacementError)
}
"""Errors that the gateway tells apart; any other comes as a RuntimeError."""
BATCHES = frozenset({"infer", "purify"})
"""The methods that take a batch."""
BATCH_SECONDS = 60.0
"""For a batch, and those of other gateways before it; whoever does not answer by then hangs."""
LOADING_SECONDS = 600.0
"""For anything else: networks may have to be loaded, and their kernels to be compiled."""


class NetworksEndedError(RuntimeError):
    """The process of the networks ended, could not begin, or is not there."""


class TracebackError(Exception):
    """The cause of an error that came from another process: its traceback there."""


class Channel(ABC):
    """A way to networks in another process, which answers one call after the other.

    Several threads may use it; each call waits for the one before.
    """

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._retired = False

    def start(self) -> None:
        """Opens the way unless it is open, and waits until the networks are loaded.

        Raises:
            NetworksEndedError: it could not be opened, or is retired.
            BundleError, PlacementError: the bundle cannot be loaded, or not in that precision.
        """
        with self._asking:
            if self._retired:
                raise NetworksEndedError("the networks are closed")
            self._open()

    def ask(self, method: str, *arguments: Any) -> Any:
        """What the method of the networks gives.

        Raises:
            NetworksEndedError: the way is closed, or is meanwhile.
            torch.OutOfMemoryError, FloatingPointError: as the method raises them.
            RuntimeError: the method raised anything else.
        """
        with self._asking:
            return self._call(method, arguments)

    def retire(self) -> None:
        """Lets it not be started again."""
        self._retired = True

    def end(self, deadline: float) -> None:
        """Closes it when it has answered, or breaks it off at a point of the monotonic clock."""
        if not self._asking.acquire(timeout=max(0, deadline - time.monotonic())):
            self._break_off()
            self._asking.acquire()
        try:
            self._drop(deadline)
        finally:
            self._asking.release()

    @abstractmethod
    def _open(self) -> None:
        """Opens the way unless it is open; called by one thread at a time, as the next one is."""

    @abstractmethod
    def _call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """Asks, and waits for the answer."""

    @abstractmethod
    def _break_off(self) -> None:
        """Has whoever waits for an answer get an error; called while another thread may be within the others."""

    @abstractmethod
    def _drop(self, deadline: float) -> None:
        """Closes what is open, at the latest at a point of the monotonic clock."""


def answer_of(call: Callable[[], Any]) -> Answer:
    """What came of a call, as it is sent back."""
    try:
        return None, call(), ""
    except Exception as error:  # noqa: BLE001 - the gateway decides what it means
        kind = next((name for name, known in TOLD_APART.items() if isinstance(error, known)), RuntimeError.__name__)
        message = str(error) if kind in TOLD_APART else repr(error)
        failed = kind, message, "".join(traceback.format_exception(error))
    # Only here is the exception gone, and with it the frames that held the batch in the device's memory.
    with suppress(RuntimeError):  # of a device that is beyond it
        torch.cuda.empty_cache()
    return failed


def receive(pipe: Connection) -> Any:
    """What the next answer says was asked for.

    Raises:
        EOFError, OSError: there is none any more.
        torch.OutOfMemoryError, FloatingPointError, BundleError, PlacementError, RuntimeError: as the call raised them.
    """
    kind, answer, told = pipe.recv()
    if kind:
        raise TOLD_APART.get(kind, RuntimeError)(answer) from TracebackError(told)
    return answer
