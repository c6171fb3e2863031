"""The deadline of a request: one point in time for everything that is done for its answer."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from service.errors import DeadlinePassedError


class Deadline:
    """Begins when a request was read.

    Args:
        seconds: until it has passed.
        clock: seconds.

    Attributes:
        begin, end: points on the clock.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self.begin = clock()
        self.end = self.begin + seconds

    @asynccontextmanager
    async def enforced(self) -> AsyncIterator[None]:
        """Cuts off what is awaited within.

        Raises:
            DeadlinePassedError: it was not finished in time.
        """
        try:
            async with asyncio.timeout(self.end - self._clock()):
                yield
        except TimeoutError as error:
            raise DeadlinePassedError(f"no answer within {self.seconds:g} s") from error

    def hold_seconds(self, quantum: float) -> float:
        """How long until a multiple of `quantum` seconds after the beginning, though not past the end."""
        now = self._clock()
        return max(0.0, min((self.begin - now) % quantum, self.end - now))
