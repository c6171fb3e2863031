"""Networks in processes of their own: they do not wait for the gateway's interpreter, and do not take it with them.

A thread that asks sleeps until the answer is there. Requests and answers go through a pipe; a process ends when its
pipe is closed, so that none outlives the gateway, however that ends.

This module is imported by the gateway and by the server that its processes are forked from.
"""

import multiprocessing
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import structlog
import torch

from models.bundle import BundleError, Manifest, read_bundle
from models.device import Placement, device_name
from service.network_calls import (
    BATCH_SECONDS,
    BATCHES,
    LOADING_SECONDS,
    Channel,
    NetworksEndedError,
    answer_of,
    receive,
)
from service.networks import LocalNetworks, Networks
from service.remote_networks import ENDING_SECONDS, RemoteNetworks

log = structlog.get_logger()

SERVER = "service.network_server"
"""The module that the server of the processes has imported when it forks them."""


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
        if bundle.manifest.networks != self.manifest.networks:
            raise BundleError(f"{self.folder}: another bundle lies here now")
        return LocalNetworks(bundle, self.defense, self.placement)


def network_processes(
    make: Callable[[], Networks],
    count: int,
    placement: Placement,
    patience: float = ENDING_SECONDS,
    batch_seconds: float = BATCH_SECONDS,
) -> RemoteNetworks:
    """Networks in processes of their own.

    Args:
        make: gives the networks, in the process that is to have them; it is pickled.
        count: of the processes.
        placement: where those networks run, and how precisely.
        patience: seconds that they have to end, all together, before they are killed.
        batch_seconds: seconds that one has for a batch; one that says nothing by then hangs, and is killed.
    """
    channels = [NetworkProcess(make, batch_seconds) for _ in range(count)]
    return RemoteNetworks(channels, device_name(placement.device), placement.precision, patience)


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


class NetworkProcess(Channel):
    """A channel to networks in a process that it starts.

    Args:
        make: gives the networks; it is pickled.
        batch_seconds: seconds that they have for a batch.
    """

    def __init__(self, make: Callable[[], Networks], batch_seconds: float) -> None:
        super().__init__()
        self._make = make
        self._batch_seconds = batch_seconds
        self._child: Child | None = None

    def _open(self) -> None:
        if self._child and self._child.process.is_alive():
            return
        self._drop(time.monotonic() + ENDING_SECONDS)
        self._child = self._fork()
        try:
            self._answer(self._child, LOADING_SECONDS)
        except BaseException:
            self._drop(time.monotonic() + ENDING_SECONDS)
            raise

    def _call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        if self._child is None:
            raise NetworksEndedError("the process of the networks is not there")
        try:
            self._child.pipe.send((method, arguments))
        except OSError as error:
            raise self._ended(self._child) from error
        return self._answer(self._child, self._batch_seconds if method in BATCHES else LOADING_SECONDS)

    def _break_off(self) -> None:
        if child := self._child:
            child.kill()

    def _drop(self, deadline: float) -> None:
        child, self._child = self._child, None
        if child:
            child.end(deadline)

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

    def _answer(self, child: Child, seconds: float) -> Any:
        try:
            if child.pipe.poll(seconds):
                return receive(child.pipe)
        except (EOFError, OSError) as lost:
            raise self._ended(child) from lost
        log.error("networks_hang", pid=child.process.pid, seconds=seconds)
        child.kill()
        child.process.join(ENDING_SECONDS)
        raise NetworksEndedError(f"the process of the networks said nothing for {seconds:g} s and was killed")

    def _ended(self, child: Child) -> NetworksEndedError:
        child.process.join(ENDING_SECONDS)
        return NetworksEndedError(f"the process of the networks ended, exit code {child.process.exitcode}")


def _serve(pipe: Connection, make: Callable[[], Networks]) -> None:
    """The life of a process: loads its networks, then answers until the pipe is closed.

    A stop of the service is the gateway's affair: it drains first, and needs the networks for that.
    """
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)
    loaded: list[Networks] = []
    with suppress(EOFError, OSError):  # the gateway is gone, or has closed its end
        pipe.send(answer_of(lambda: loaded.append(make())))
        while loaded:
            method, arguments = pipe.recv()
            pipe.send(answer_of(partial(getattr(loaded[0], method), *arguments)))
