"""Networks in processes of their own: they do not wait for the gateway's interpreter, and do not take it with them.

A thread that asks sleeps until the answer is there. Requests and answers go through a pipe; a process ends when its
pipe is closed, so that none outlives the gateway, however that ends.

This module is imported by the gateway and by the server that its processes are forked from.
"""

import atexit
import multiprocessing
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import structlog
import torch

from models.bundle import BundleError, Manifest, read_bundle
from models.device import Placement
from models.preprocessing import Pixels
from service.networks import Draws, Inferred, LocalNetworks, Networks

log = structlog.get_logger()

SERVER = "service.network_server"
"""The module that the server of the processes has imported when it forks them."""
ENDING_SECONDS = 5.0
"""For the processes to end by themselves; they may be amid a batch."""
Answer = tuple[str | None, Any, str]
"""The kind of an error, its message and its traceback; or no kind, and what was asked for."""
TOLD_APART: dict[str, type[Exception]] = {
    error.__name__: error for error in (torch.OutOfMemoryError, FloatingPointError, BundleError)
}
"""Errors that the gateway tells apart; any other comes from a process as a RuntimeError."""


class NetworksEndedError(RuntimeError):
    """The process of the networks ended, or could not begin."""


class TracebackError(Exception):
    """The cause of an error that came from a process: its traceback there."""


@dataclass(frozen=True)
class BundleNetworks:
    """Makes the networks of a bundle, in whichever process it is called.

    Attributes:
        folder: of the bundle.
        manifest: of the bundle whose networks they must be.
        defense: the name of what stands before the classifier.
        placement: where they run, and how precisely.
        threads: of one operation on a CPU.
    """

    folder: Path
    manifest: Manifest
    defense: str
    placement: Placement
    threads: int

    def __call__(self) -> Networks:
        """Reads the bundle.

        Raises:
            BundleError: it cannot be read, or has other networks by now.
        """
        torch.set_num_threads(self.threads)
        bundle = read_bundle(self.folder)
        now, then = bundle.manifest, self.manifest
        if (now.classifier, now.pool, now.preprocessing) != (then.classifier, then.pool, then.preprocessing):
            raise BundleError(f"{self.folder}: another bundle lies here now")
        return LocalNetworks(bundle, self.defense, self.placement)


class NetworkProcesses:
    """Networks in as many processes as there are workers; each batch goes through one of them.

    None is started before the first warm-up; each warm-up starts those that have ended.

    Args:
        make: gives the networks, in the process that is to have them; it is pickled.
        count: of the processes.
        patience: seconds that they have to end, all together, before they are killed.
    """

    def __init__(self, make: Callable[[], Networks], count: int, patience: float = ENDING_SECONDS) -> None:
        self._processes = [NetworkProcess(make) for _ in range(count)]
        self._patience = patience
        self._free: SimpleQueue[NetworkProcess] = SimpleQueue()
        for process in self._processes:
            self._free.put(process)
        atexit.register(self.close)  # before multiprocessing's own, which would wait for them

    def warm_up(self, purifiers: tuple[str, ...], max_batch: int) -> None:
        """See `Networks`.

        Raises:
            NetworksEndedError: a process could not begin.
            BundleError: one cannot load the bundle.
        """

        def warm_up(process: NetworkProcess) -> None:
            process.start()
            process.ask("warm_up", purifiers, max_batch)

        with ThreadPoolExecutor(len(self._processes)) as pool:
            list(pool.map(warm_up, self._processes))

    def infer(self, images: Sequence[Pixels], draws: Draws | None) -> Inferred:
        """See `Networks`.

        Raises:
            NetworksEndedError: the process ended meanwhile, or before.
        """
        with self._one() as process:
            inferred: Inferred = process.ask("infer", images, draws)
        return inferred

    def purify(self, images: Sequence[Pixels], draws: Draws) -> bool:
        """See `Networks`."""
        with self._one() as process:
            return bool(process.ask("purify", images, draws))

    def close(self) -> None:
        """Ends the processes for good; whoever waits for an answer longer than there is patience gets an error."""
        deadline = time.monotonic() + self._patience
        for process in self._processes:
            process.retire()
        for process in self._processes:
            process.end(deadline)
        atexit.unregister(self.close)

    @contextmanager
    def _one(self) -> Iterator["NetworkProcess"]:
        process = self._free.get()
        try:
            yield process
        finally:
            self._free.put(process)


@dataclass(frozen=True)
class Child:
    """A process that was started, and our end of its pipe."""

    process: BaseProcess
    pipe: Connection

    def kill(self) -> None:
        """Ends it now; another thread may have done so."""
        with suppress(ValueError):
            self.process.kill()

    def end(self, deadline: float) -> None:
        """Has it end by itself, or kills it at a point of the monotonic clock."""
        self.pipe.close()
        self.process.join(max(0, deadline - time.monotonic()))
        if self.process.is_alive():
            log.warning("networks_killed", pid=self.process.pid)
            self.kill()
            self.process.join(ENDING_SECONDS)


class NetworkProcess:
    """One process with networks, which answers one call after the other.

    Args:
        make: gives the networks; it is pickled.
    """

    def __init__(self, make: Callable[[], Networks]) -> None:
        self._make = make
        self._asking = threading.Lock()
        self._retired = False
        self._child: Child | None = None

    def start(self) -> None:
        """Starts it unless it runs, and waits until its networks are loaded.

        Raises:
            NetworksEndedError: it could not begin, ended before, or is retired.
            BundleError: it cannot load the bundle.
        """
        with self._asking:
            if self._retired:
                raise NetworksEndedError("the networks are closed")
            if self._child and self._child.process.is_alive():
                return
            self._drop(time.monotonic() + ENDING_SECONDS)
            self._child = self._fork()
            try:
                self._answer(self._child)
            except BaseException:
                self._drop(time.monotonic() + ENDING_SECONDS)
                raise

    def ask(self, method: str, *arguments: Any) -> Any:
        """What the method of its networks gives.

        Raises:
            NetworksEndedError: it has ended, or does so meanwhile.
            torch.OutOfMemoryError, FloatingPointError: as the method raises them.
            RuntimeError: the method raised anything else.
        """
        with self._asking:
            if self._child is None:
                raise NetworksEndedError("the process of the networks is not there")
            try:
                self._child.pipe.send((method, arguments))
            except OSError as error:
                raise self._ended(self._child) from error
            return self._answer(self._child)

    def retire(self) -> None:
        """Lets it not be started again."""
        self._retired = True

    def end(self, deadline: float) -> None:
        """Ends it when it has answered, or kills it at a point of the monotonic clock."""
        if not self._asking.acquire(timeout=max(0, deadline - time.monotonic())):
            if child := self._child:
                child.kill()
            self._asking.acquire()
        try:
            self._drop(deadline)
        finally:
            self._asking.release()

    def _fork(self) -> Child:
        """A process from a server that has imported all and computed nothing: it begins at once and shares that."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([SERVER])
        pipe, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._make), name="networks", daemon=True)
        try:
            process.start()
        except Exception as error:
            pipe.close()
            raise NetworksEndedError("the process of the networks could not begin") from error
        finally:
            theirs.close()
        return Child(process, pipe)

    def _answer(self, child: Child) -> Any:
        try:
            kind, answer, told = child.pipe.recv()
        except (EOFError, OSError) as lost:
            raise self._ended(child) from lost
        if kind:
            raise TOLD_APART.get(kind, RuntimeError)(answer) from TracebackError(told)
        return answer

    def _ended(self, child: Child) -> NetworksEndedError:
        child.process.join(ENDING_SECONDS)
        return NetworksEndedError(f"the process of the networks ended, exit code {child.process.exitcode}")

    def _drop(self, deadline: float) -> None:
        child, self._child = self._child, None
        if child:
            child.end(deadline)


def _serve(pipe: Connection, make: Callable[[], Networks]) -> None:
    """The life of a process: loads its networks, then answers until the pipe is closed.

    A stop of the service is the gateway's affair: it drains first, and needs the networks for that.
    """
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)
    loaded: list[Networks] = []
    with suppress(EOFError, OSError):  # the gateway is gone, or has closed its end
        pipe.send(_answer(lambda: loaded.append(make())))
        while loaded:
            method, arguments = pipe.recv()
            pipe.send(_answer(partial(getattr(loaded[0], method), *arguments)))


def _answer(call: Callable[[], Any]) -> Answer:
    """What came of a call."""
    try:
        return None, call(), ""
    except Exception as error:  # noqa: BLE001 - the gateway decides what it means
        kind = next((name for name, known in TOLD_APART.items() if isinstance(error, known)), RuntimeError.__name__)
        message = str(error) if kind in TOLD_APART else repr(error)
        failed = kind, message, "".join(traceback.format_exception(error))
    # Only here is the exception gone, and with it the frames that held the batch in the device's memory.
    torch.cuda.empty_cache()
    return failed
