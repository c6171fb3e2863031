"""SIGTERM as an exception, so that what has a session of its own, or sleeps, does not outlive this process."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Lets SIGTERM raise `SystemExit` meanwhile; in another thread than the main one it does nothing."""
    if threading.current_thread() is not threading.main_thread():  # no other thread may handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(sig: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + sig)
