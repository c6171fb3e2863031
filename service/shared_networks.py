"""Networks that several gateways share: held by `purigate networks`, asked through a socket of this machine."""

import os
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import structlog

from models.bundle import Manifest
from models.bundle.manifest import Classifier, Pool
from models.preprocessing import Preprocessing
from service.network_calls import BATCH_SECONDS, BATCHES, LOADING_SECONDS, Channel, NetworksEndedError, receive
from service.remote_networks import RemoteNetworks

log = structlog.get_logger()

PATIENCE_SECONDS = 60.0
"""For whoever holds the networks to listen; what it loads then may take longer."""
POLL_SECONDS = 0.2
TIME = struct.Struct("ll")
"""Seconds and microseconds, as the system takes them."""
CREDENTIALS = struct.Struct("3i")
"""Of who listens, as Linux tells them: process, user and group."""


@dataclass(frozen=True)
class Wanted:
    """Which networks a gateway asks for; the first that it sends.

    Attributes:
        networks: of its bundle.
        defense: the name of what stands before the classifier.
    """

    networks: tuple[Classifier, Pool, Preprocessing]
    defense: str


@dataclass(frozen=True)
class Held:
    """The answer to that, once they are there.

    Attributes:
        device: that they run on, in words.
        precision: of their arithmetic.
    """

    device: str
    precision: str


class SharedChannel(Channel):
    """A channel to networks that another process holds for several gateways.

    Args:
        path: of the socket.
        wanted: the networks.
    """

    def __init__(self, path: Path, wanted: Wanted) -> None:
        super().__init__()
        self._path = path
        self._wanted = wanted
        self._pipe: Connection | None = None
        self.held: Held | None = None

    def _open(self) -> None:
        if self._pipe and not self._pipe.poll():  # readable while nothing was asked: its other end is closed
            return
        self._close()
        self._pipe = _connected(self._path)
        self.held = self._exchange(self._wanted, LOADING_SECONDS)

    def _call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        return self._exchange((method, arguments), BATCH_SECONDS if method in BATCHES else LOADING_SECONDS)

    def _break_off(self) -> None:
        """See `Channel`; closing the pipe would wake nobody."""
        if pipe := self._pipe:
            with suppress(OSError), socket.socket(fileno=os.dup(pipe.fileno())) as other:
                other.shutdown(socket.SHUT_RDWR)

    def _drop(self, deadline: float) -> None:  # noqa: ARG002 - it takes no time
        self._close()

    def _exchange(self, request: Any, seconds: float) -> Any:
        if self._pipe is None:
            raise NetworksEndedError("there is no way to the networks")
        try:
            self._pipe.send(request)
            if self._pipe.poll(seconds):
                return receive(self._pipe)
        except (EOFError, OSError) as lost:
            self._close()
            raise NetworksEndedError("whoever holds the networks ended") from lost
        self._close()
        raise NetworksEndedError(f"whoever holds the networks did not answer within {seconds:g} s")

    def _close(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe:
            pipe.close()


def shared_networks(path: Path, manifest: Manifest, defense: str, patience: float = PATIENCE_SECONDS) -> RemoteNetworks:
    """The networks of a bundle, held by another process.

    Args:
        path: of the socket that it listens on.
        manifest: of the bundle.
        defense: the name of what stands before the classifier.
        patience: seconds for it to listen.

    Raises:
        NetworksEndedError: it does not, or ends meanwhile.
        BundleError: it cannot load them, or has another bundle.
    """
    channel = SharedChannel(path, Wanted(manifest.networks, defense))
    held = _await(channel, path, time.monotonic() + patience)
    return RemoteNetworks([channel], held.device, held.precision)


def _await(channel: SharedChannel, path: Path, deadline: float) -> Held:
    told = False
    while True:
        try:
            channel.start()
        except NetworksEndedError:
            if time.monotonic() > deadline:
                raise
        if channel.held:
            return channel.held
        if not told:
            log.info("networks_awaited", socket=str(path))
            told = True
        time.sleep(POLL_SECONDS)


def _connected(path: Path) -> Connection:
    """A pipe to whoever listens there.

    Raises:
        NetworksEndedError: nobody does, or another user, who could have what is sent back do anything.
    """
    try:
        pipe = Client(str(path), "AF_UNIX")
    except OSError as error:
        raise NetworksEndedError(f"{path}: nobody holds networks here ({error.strerror or error})") from error
    if not _is_ours(pipe):
        pipe.close()
        raise NetworksEndedError(f"{path}: another user listens here")
    with socket.socket(fileno=os.dup(pipe.fileno())) as other:  # whoever does not read must not hold us up for good
        other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, TIME.pack(round(BATCH_SECONDS), 0))
    return pipe


def _is_ours(pipe: Connection) -> bool:
    """Whether the process at the other end is of our user, where the system tells."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    with socket.socket(fileno=os.dup(pipe.fileno())) as other:
        told = other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    _, user, _ = CREDENTIALS.unpack(told)
    return bool(user == os.geteuid())
