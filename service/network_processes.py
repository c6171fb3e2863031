"""Networks in processes of their own: they do not wait for the gateway's interpreter, and do not take it with them.

A thread that asks sleeps until the answer is there. Requests and answers go through a pipe; a process ends when its
pipe is closed, so that none outlives the gateway, however that ends.
"""

import atexit
import multiprocessing
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
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

ENDING_SECONDS = 5
"""For a process to end by itself; it may be amid a batch."""
Answer = tuple[str | None, Any]
"""The name of an error with its text, or none and what was asked for."""
TOLD_APART: dict[str, type[Exception]] = {
    "OutOfMemoryError": torch.OutOfMemoryError,
    "FloatingPointError": FloatingPointError,
}
"""Errors that the engine tells apart, by the name under which they come from a process."""


class NetworksEndedError(RuntimeError):
    """The process of the networks ended, or could not begin."""


@dataclass(frozen=True)
class BundleNetworks:
    """Makes the networks of a bundle, in whichever process it is called.

    Attributes:
        folder: of the bundle.
        manifest: that it must have.
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
            BundleError: it cannot be read, or is another one by now.
        """
        torch.set_num_threads(self.threads)
        bundle = read_bundle(self.folder)
        if bundle.manifest != self.manifest:
            raise BundleError(f"{self.folder}: another bundle lies here now")
        return LocalNetworks(bundle, self.defense, self.placement)


class NetworkProcesses:
    """Networks in as many processes as there are workers; each batch goes through one of them.

    None is started before the first warm-up; each warm-up starts those that have ended.

    Args:
        make: gives the networks, in the process that is to have them; it is pickled.
        count: of the processes.
    """

    def __init__(self, make: Callable[[], Networks], count: int) -> None:
        self._processes = [NetworkProcess(make) for _ in range(count)]
        self._free: SimpleQueue[NetworkProcess] = SimpleQueue()
        for process in self._processes:
            self._free.put(process)
        atexit.register(self.close)  # before multiprocessing's own, which would wait for them

    def warm_up(self, purifiers: tuple[str, ...], max_batch: int) -> None:
        """See `Networks`.

        Raises:
            NetworksEndedError: a process could not begin.
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
        """Ends the processes."""
        atexit.unregister(self.close)
        for process in self._processes:
            process.close()

    @contextmanager
    def _one(self) -> Iterator["NetworkProcess"]:
        process = self._free.get()
        try:
            yield process
        finally:
            self._free.put(process)


class NetworkProcess:
    """One process with networks, which answers one call after the other.

    Args:
        make: gives the networks; it is pickled.
    """

    def __init__(self, make: Callable[[], Networks]) -> None:
        self._make = make
        self._asking = threading.Lock()
        self._closed = False
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def start(self) -> None:
        """Starts it unless it runs, and waits until its networks are loaded.

        Raises:
            NetworksEndedError: it ended before, or is closed.
            RuntimeError: it cannot load them; the message has the traceback.
        """
        with self._asking:
            if self._closed:
                raise NetworksEndedError("the networks are closed")
            if self._process and self._process.is_alive():
                return
            self._end()
            # Forked from a process that has imported all and computed nothing, so that they share what they import.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self._make), name="networks", daemon=True)
            self._process.start()
            theirs.close()
            self._answer(self._pipe)

    def ask(self, method: str, *arguments: Any) -> Any:
        """What the method of its networks gives.

        Raises:
            NetworksEndedError: it has ended, or does so meanwhile.
            torch.OutOfMemoryError, FloatingPointError: as the method raises them.
            RuntimeError: the method raised anything else; the message has its traceback.
        """
        with self._asking:
            if self._pipe is None:
                raise NetworksEndedError("the process of the networks is not there")
            try:
                self._pipe.send((method, arguments))
            except OSError as error:
                raise self._ended() from error
            return self._answer(self._pipe)

    def close(self) -> None:
        """Ends it for good; whoever still waits for an answer after some seconds gets an error."""
        self._closed = True
        if not self._asking.acquire(timeout=ENDING_SECONDS):
            if self._process:
                self._process.kill()
            self._asking.acquire()
        try:
            self._end()
        finally:
            self._asking.release()

    def _answer(self, pipe: Connection) -> Any:
        try:
            error, answer = pipe.recv()
        except (EOFError, OSError) as lost:
            raise self._ended() from lost
        if error:
            raise TOLD_APART.get(error, RuntimeError)(answer)
        return answer

    def _ended(self) -> NetworksEndedError:
        if self._process:
            self._process.join(ENDING_SECONDS)
        code = self._process.exitcode if self._process else None
        return NetworksEndedError(f"the process of the networks ended, exit code {code}")

    def _end(self) -> None:
        if self._pipe:
            self._pipe.close()
        if self._process:
            self._process.join(ENDING_SECONDS)
            if self._process.is_alive():
                log.warning("networks_killed", pid=self._process.pid)
                self._process.kill()
                self._process.join()
            self._process.close()
        self._process = self._pipe = None


def _serve(pipe: Connection, make: Callable[[], Networks]) -> None:
    """The life of a process: loads its networks, then answers until the pipe is closed.

    A stop of the service is the gateway's affair: it drains first, and needs the networks for that.
    """
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)
    try:
        networks = make()
    except Exception as error:  # noqa: BLE001 - the gateway says what it was
        pipe.send(_told(error))
        return
    pipe.send((None, None))
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer: Answer = None, getattr(networks, method)(*arguments)
        except Exception as error:  # noqa: BLE001 - the gateway decides what it means
            answer = _told(error)
        pipe.send(answer)


def _told(error: Exception) -> Answer:
    return type(error).__name__, "".join(traceback.format_exception(error))
