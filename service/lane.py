"""A lane: one loaded bundle with all that is its own: the engine, the decoder for its input, and the queue before it.

A new bundle gets a lane beside the old one and takes its place when it is warm.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

import structlog

from models.preprocessing import Pixels
from service.batcher import Batcher
from service.engine import Engine, PoolExhaustedError, Prediction
from service.errors import DeviceFaultError
from service.images import ImageDecoder
from service.metrics import Metrics
from service.readiness import RETRY_AFTER_SECONDS
from service.settings import Settings

log = structlog.get_logger()

Health = Literal["ready", "fault", "dead"]


@dataclass(frozen=True)
class Patience:
    """How long an engine may take; no thread can be taken back from one that never returns.

    Attributes:
        recovery_pauses: seconds before each warm-up after a fault; when they are used up the engine is dead.
        warm_up_seconds: for a warm-up; networks in other processes have less.
        batch_seconds: for a batch, which may be several calls of the networks, or until the deadline of a query where
            that is later.
    """

    recovery_pauses: Sequence[float] = (0.1, 0.5, 1, 2, 5, 10, 30)
    warm_up_seconds: float = 1800.0
    batch_seconds: float = 180.0


class Lane:
    """Answers queries about decoded images; after a device fault, refuses them until a warm-up passes.

    Args:
        settings: of the service.
        engine: what purifies and classifies.
        metrics: where waiting is timed.
        on_change: told, on the event loop, what becomes of the engine; a dead one never comes back.
        patience: with the engine.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        metrics: Metrics,
        on_change: Callable[["Lane", Health], None],
        patience: Patience = Patience(),
    ) -> None:
        self.engine = engine
        self.decoder = ImageDecoder(engine.manifest.preprocessing, settings.max_pixels)
        self._on_change = on_change
        self._patience = patience
        self._batch_seconds = max(patience.batch_seconds, settings.request_deadline_ms / 1000)
        self._faulted = False
        self._faulting = threading.Lock()
        self._closed = False
        self._recovery: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        waited = metrics.stage_duration.labels(stage="queue").observe
        self._batcher: Batcher[Pixels, Prediction] = Batcher(
            self._run_engine, settings.max_batch, settings.queue_capacity, engine.workers, on_wait=waited
        )

    @property
    def depth(self) -> int:
        """How many queries wait."""
        return self._batcher.depth

    def backlog_seconds(self) -> float:
        """How long those that wait will take."""
        return self._batcher.backlog_seconds()

    def start(self) -> None:
        """Begins to take queries."""
        self._loop = asyncio.get_running_loop()
        self._batcher.start()
        self._watch = asyncio.create_task(self._await_hang())

    async def warm_up(self) -> None:
        """Runs everything of the engine once; raises if anything fails.

        Raises:
            TimeoutError: it takes longer than there is patience.
        """
        async with asyncio.timeout(self._patience.warm_up_seconds):
            await asyncio.to_thread(self.engine.warm_up)

    def submit(self, images: Sequence[Pixels], deadline: float) -> "list[Future[Prediction]]":
        """Queues all of `images` or none.

        Raises:
            QueueFullError, NotReadyError: they are not taken.
        """
        return self._batcher.submit(images, deadline)

    async def close(self, seconds: float) -> None:
        """Refuses new queries and waits, at most `seconds`, for those it has; no fault is recovered from any more.

        The engine goes with it.
        """
        self._closed = True
        for task in (self._recovery, self._watch):
            if task:
                task.cancel()
        await asyncio.to_thread(self._batcher.close, seconds)
        await asyncio.to_thread(self.engine.close)

    def _run_engine(self, images: list[Pixels]) -> list[Prediction]:
        """Called in the batcher's threads; after a fault nothing more goes to the device until it is recovered."""
        if self._faulted:
            raise DeviceFaultError("the device failed before this query", RETRY_AFTER_SECONDS)
        try:
            return self.engine.classify(images)
        except Exception as error:
            exhausted = isinstance(error, PoolExhaustedError)
            log.exception("pool_exhausted" if exhausted else "device_fault", queries=len(images))
            self._fault(exhausted=exhausted)
            raise DeviceFaultError("the device failed on this query", RETRY_AFTER_SECONDS) from error

    def _fault(self, *, exhausted: bool) -> None:
        """Has the event loop react: once to faults of batches that ran at the same time, always to a pool used up."""
        with self._faulting:
            first, self._faulted = not self._faulted, True
        if exhausted:
            self._loop.call_soon_threadsafe(self._die)
        elif first:
            self._loop.call_soon_threadsafe(self._start_recovery)

    async def _await_hang(self) -> None:
        while True:
            held = self._batcher.longest_seconds()
            if held < self._batch_seconds:
                await asyncio.sleep(self._batch_seconds - held)
                continue
            # A process that was suspended for so long has not let it work: it gets some more time.
            await asyncio.sleep(self._batch_seconds / 20)
            if self._batcher.longest_seconds() > held:
                break
        log.error("networks_hang", seconds=round(held, 1))
        self._die()

    def _die(self) -> None:
        self._closed = True
        if self._recovery:
            self._recovery.cancel()
        self._on_change(self, "dead")

    def _start_recovery(self) -> None:
        if self._closed:
            return
        self._on_change(self, "fault")
        self._recovery = asyncio.create_task(self._recover())

    async def _recover(self) -> None:
        """After a fault: repeats the warm-up until it passes, ever more patiently.

        Some faults, such as an illegal access on a GPU, outlast everything but the process.
        """
        attempts = 0
        for pause in self._patience.recovery_pauses:
            await asyncio.sleep(pause)
            attempts += 1
            try:
                await self.warm_up()
            except Exception as error:
                log.exception("recovery_failed")
                if isinstance(error, TimeoutError):
                    break  # the next one would wait for the same thread, or hang as it does
            else:
                self._faulted = False
                log.info("recovered")
                self._on_change(self, "ready")
                return
        log.error("device_lost", attempts=attempts)
        self._die()
