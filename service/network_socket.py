"""The socket at which a process that holds networks is asked."""

import os
import stat
from contextlib import suppress
from multiprocessing.connection import Client, Listener
from pathlib import Path

BACKLOG = 128
OURS_ALONE = 0o177
"""The mask under which the socket is made: whoever can write to it can do what this process can."""


class SocketError(Exception):
    """The socket cannot be made, or another process listens at it."""


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
