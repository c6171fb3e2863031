"""The bytes that all bodies together may hold in memory, from their first byte to their answer."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import QueueFullError
from service.metrics import Metrics

RETRY_AFTER_SECONDS = 1.0


class Bodies:
    """Counts the bytes of every body that is being read or whose answer is awaited.

    Args:
        capacity: most bytes of all of them.
        metrics: where their number is told.
    """

    def __init__(self, capacity: int, metrics: Metrics) -> None:
        self._capacity = capacity
        self._held = 0
        metrics.waiting_bytes.set_function(lambda: self._held)

    @contextmanager
    def open(self) -> Iterator["Body"]:
        """The body of one request, whose bytes are given back at the end."""
        body = Body(self)
        try:
            yield body
        finally:
            self._held -= body.held

    def require(self, count: int) -> None:
        """Lets so many more bytes in.

        Raises:
            QueueFullError: there is no room for them.
        """
        if self._held + count > self._capacity:
            raise QueueFullError("too many bytes wait", RETRY_AFTER_SECONDS)

    def take(self, count: int) -> None:
        """The same, and counts them."""
        self.require(count)
        self._held += count


class Body:
    """One body's share of the bytes.

    Attributes:
        held: bytes that came so far.
    """

    def __init__(self, bodies: Bodies) -> None:
        self.held = 0
        self._bodies = bodies

    def expect(self, count: int) -> None:
        """Refuses a body that says it has `count` bytes if they have no room now; reserves nothing for a mere promise.

        Raises:
            QueueFullError: they have none.
        """
        self._bodies.require(count)

    def take(self, count: int) -> None:
        """Counts `count` bytes that came.

        Raises:
            QueueFullError: there is no room for them.
        """
        self._bodies.take(count)
        self.held += count
