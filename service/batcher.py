"""The batcher: many callers, and workers that take what waits as soon as they are free.

It knows futures and a function from a list to a list, nothing of tensors or HTTP. Workers are threads, so that the
device goes from one batch to the next without asking the event loop.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from service.errors import DeadlinePassedError, NotReadyError, QueueFullError

Item = TypeVar("Item")
Result = TypeVar("Result")
Clock = Callable[[], float]


@dataclass(eq=False)
class Waiting(Generic[Item, Result]):
    """An item in the queue, and the future of whoever waits for its result."""

    item: Item
    deadline: float
    since: float
    future: "Future[Result]" = field(default_factory=Future)


class Batcher(Generic[Item, Result]):
    """Collects items into batches for `process`, in the order in which they came.

    There is no timer: a batch is what waits at the moment a worker is free, at most `max_batch` items, and no more than
    an equal share where other workers are free too. An item whose future was cancelled or whose deadline has passed is
    dropped before `process` sees it. Every future is resolved on every path. Constructing a batcher starts nothing;
    `start` does, and `close` drains it.

    Args:
        process: items to results, one for each, in order; runs in the workers' threads.
        max_batch: most items of one call.
        capacity: most items that may wait.
        workers: threads, and so calls of `process` at once.
        on_wait: told the seconds that each item waited, as it is taken.
        clock: seconds; deadlines are points on it.
    """

    def __init__(
        self,
        process: Callable[[list[Item]], Sequence[Result]],
        max_batch: int,
        capacity: int,
        workers: int = 1,
        on_wait: Callable[[float], None] = lambda _seconds: None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._process = process
        self._max_batch = max_batch
        self._capacity = capacity
        self._on_wait = on_wait
        self._clock = clock
        self._queue: deque[Waiting[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = True
        self._seconds_per_item = 0.0
        self._begun: dict[int, float] = {}
        self._workers = [
            threading.Thread(target=self._work, name=f"batcher-{number}", daemon=True) for number in range(workers)
        ]
        self._free = workers

    def start(self) -> None:
        """Begins to take items."""
        self._closed = False
        for worker in self._workers:
            worker.start()

    def close(self, timeout: float) -> None:
        """Refuses new items and waits, at most `timeout` seconds, until those that wait are finished.

        What is not begun by then is told that it never will be.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        end = time.monotonic() + timeout
        for worker in self._workers:
            worker.join(max(0, end - time.monotonic()))
        with self._changed:
            left = [self._queue.popleft() for _ in range(len(self._queue))]
        for entry in left:
            if entry.future.set_running_or_notify_cancel():
                entry.future.set_exception(NotReadyError("the service has stopped", retry_after=1))

    @property
    def depth(self) -> int:
        """How many items wait."""
        return len(self._queue)

    def backlog_seconds(self) -> float:
        """How long the items that wait will take, judged by the batches so far."""
        return self.depth * self._seconds_per_item / len(self._workers)

    def longest_seconds(self) -> float:
        """How long the call of `process` that has run for longest has run; 0 where none runs."""
        begun = tuple(self._begun.values())
        return self._clock() - min(begun) if begun else 0.0

    def submit(self, items: Sequence[Item], deadline: float) -> "list[Future[Result]]":
        """Queues all of `items` or none; gives the future of each.

        Raises:
            QueueFullError: they do not fit.
            NotReadyError: the batcher is not open.
        """
        now = self._clock()
        entries = [Waiting[Item, Result](item, deadline, now) for item in items]
        with self._changed:
            if self._closed:
                raise NotReadyError("the service is stopping", retry_after=1)
            if len(self._queue) + len(entries) > self._capacity:
                raise QueueFullError("too many queries wait", retry_after=self.backlog_seconds())
            self._queue.extend(entries)
            self._changed.notify(len(entries))
        for entry in entries:
            entry.future.add_done_callback(partial(self._forget, entry))
        return [entry.future for entry in entries]

    def _forget(self, entry: Waiting[Item, Result], future: "Future[Result]") -> None:
        """Gives the place of a cancelled item to others."""
        if future.cancelled():
            with self._changed, suppress(ValueError):
                self._queue.remove(entry)

    def _work(self) -> None:
        while batch := self._take():
            live = [entry for entry in batch if self._still_wanted(entry)]
            if live:
                self._run(live)
            with self._changed:
                self._free += 1

    def _take(self) -> list[Waiting[Item, Result]]:
        """Waits for items; an empty list says that the batcher is closed and the queue is empty."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            share = math.ceil(len(self._queue) / self._free)
            self._free -= 1
            return [self._queue.popleft() for _ in range(min(share, self._max_batch))]

    def _still_wanted(self, entry: Waiting[Item, Result]) -> bool:
        if not entry.future.set_running_or_notify_cancel():
            return False
        now = self._clock()
        if now >= entry.deadline:
            entry.future.set_exception(DeadlinePassedError("the query waited longer than its deadline"))
            return False
        self._on_wait(now - entry.since)
        return True

    def _run(self, batch: list[Waiting[Item, Result]]) -> None:
        begin = self._begun[threading.get_ident()] = self._clock()
        try:
            results = self._results(batch)
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            for entry in batch:
                entry.future.set_exception(error)
            return
        finally:
            del self._begun[threading.get_ident()]
        self._seconds_per_item = (self._clock() - begin) / len(batch)
        for entry, result in zip(batch, results, strict=True):
            entry.future.set_result(result)

    def _results(self, batch: list[Waiting[Item, Result]]) -> Sequence[Result]:
        results = self._process([entry.item for entry in batch])
        if len(results) != len(batch):
            raise RuntimeError(f"{len(results)} results for {len(batch)} items")
        return results
