"""When a user asks next."""

import time
from collections.abc import Callable


class Pace:
    """One request in so many seconds, from a point in time that is the user's own.

    Locust's constant_pacing counts from the making of a user: those that were made together would ask together.

    Args:
        seconds: from one request to the next.
        clock: seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._due = clock()

    def begin(self) -> None:
        """The first request is made now."""
        self._due = self._clock()

    def pause(self) -> float:
        """Seconds until the next request; none if the last one took longer than the pace."""
        now = self._clock()
        self._due = max(self._due + self._seconds, now)
        return self._due - now
