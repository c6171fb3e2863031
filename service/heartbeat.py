"""A watch over the event loop: a process whose loop does not turn any more is ended, so that it is started again.

Whoever supervises it may not notice by itself: Docker restarts what ends and not what is unhealthy, and the metrics,
which a thread serves, stay as they were.
"""

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import structlog

log = structlog.get_logger()

BEATS = 60
SECONDS = 1.0
LAST_WORDS_SECONDS = 2.0


@asynccontextmanager
async def watched(on_stop: Callable[[], None], beats: int = BEATS, seconds: float = SECONDS) -> AsyncIterator[None]:
    """Watches the running loop while it is open.

    Beats are counted and not timed: a process that was suspended, or a machine that slept, has missed none.

    Args:
        on_stop: called in another thread when the loop has missed so many beats in a row.
        beats: how many.
        seconds: from one to the next.
    """
    heart = _Heart()
    closed = threading.Event()
    beating = asyncio.create_task(heart.beat(seconds))
    watcher = threading.Thread(
        target=heart.watch, args=(closed, on_stop, beats, seconds), name="heartbeat", daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        closed.set()
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating


def end_process() -> None:
    """Says where the main thread is, if it can, and ends the process with status 1, whatever its other threads hold."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - the one way to see it
    stack = "".join(traceback.format_stack(frame)) if frame else ""
    # The loop may hang in the writing of a line, and whoever writes another would wait for it.
    words = threading.Thread(target=lambda: log.error("event_loop_hangs", stack=stack), daemon=True)
    words.start()
    words.join(LAST_WORDS_SECONDS)
    os._exit(1)


class _Heart:
    def __init__(self) -> None:
        self._count = 0

    async def beat(self, seconds: float) -> None:
        while True:
            self._count += 1
            await asyncio.sleep(seconds)

    def watch(self, closed: threading.Event, on_stop: Callable[[], None], beats: int, seconds: float) -> None:
        seen, missed = -1, 0
        while not closed.wait(seconds):
            missed = missed + 1 if self._count == seen else 0
            seen = self._count
            if missed == beats:
                on_stop()
                return
