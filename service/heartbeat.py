"""A watch over the event loop: a process whose loop does not turn any more is ended, so that it is started again.

Whoever supervises it may not notice by itself: Docker restarts what ends and not what is unhealthy, and the metrics,
which a thread serves, stay as they were. Native code that hangs and keeps the interpreter to itself stops this watch,
too: only a liveness probe sees that.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

BEATS = 60
SECONDS = 1.0


@asynccontextmanager
async def watched(on_stop: Callable[[], None], beats: int = BEATS, seconds: float = SECONDS) -> AsyncIterator[None]:
    """Watches the running loop while it is open.

    Beats are counted and not timed: a process that was suspended, or a machine that slept, has missed none.

    Args:
        on_stop: called in another thread when the loop has missed so many beats in a row.
        beats: how many.
        seconds: from one to the next.
    """
    heart = Heart()
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


class Heart:
    """Beats in the event loop, and is watched from a thread.

    Attributes:
        count: of its beats so far.
    """

    def __init__(self) -> None:
        self.count = 0

    async def beat(self, seconds: float) -> None:
        """Beats until it is cancelled."""
        while True:
            self.count += 1
            await asyncio.sleep(seconds)

    def watch(self, closed: threading.Event, on_stop: Callable[[], None], beats: int, seconds: float) -> None:
        """Waits until so many beats in a row are missed, and says so once; or until it is closed."""
        seen, missed = -1, 0
        while not closed.wait(seconds):
            missed = missed + 1 if self.count == seen else 0
            seen = self.count
            if missed == beats:
                on_stop()
                return
