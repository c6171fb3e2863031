"""The deadline of a request: one point in time for everything that is done for its answer."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.errors import DeadlinePassedError


class Deadline:
    """Begins when a request was read.

    Args:
        seconds: until it has passed.

    Attributes:
        begin, end: points on the clock of `time.monotonic`.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begin = time.monotonic()
        self.end = self.begin + seconds

    @asynccontextmanager
    async def enforced(self) -> AsyncIterator[None]:
        """Cuts off what is awaited within.

        Raises:
            DeadlinePassedError: it was not finished in time.
        """
        try:
            async with asyncio.timeout(self.end - time.monotonic()):
                yield
        except TimeoutError as error:
            raise DeadlinePassedError(f"no answer within {self.seconds:g} s") from error

    async def hold(self, quantum: float) -> None:
        """Waits until a multiple of `quantum` seconds after the beginning, though not past the end."""
        now = time.monotonic()
        await asyncio.sleep(max(0.0, min((self.begin - now) % quantum, self.end - now)))
