"""The gateway: the way of a query from bytes to scores, through decoding, the queue and the engine."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain, repeat

import numpy as np
import structlog

from models.preprocessing import Pixels
from service.batcher import Batcher
from service.engine import Engine, Scores
from service.errors import (
    DeadlinePassedError,
    DeviceFaultError,
    NotReadyError,
    QueueFullError,
    TooManyPixelsError,
    UndecodableImageError,
    UnsupportedImageTypeError,
)
from service.images import ImageDecoder
from service.metrics import Metrics
from service.readiness import RETRY_AFTER_SECONDS, Readiness
from service.settings import Settings

log = structlog.get_logger()

OUTCOMES: dict[type[BaseException], str] = {
    UnsupportedImageTypeError: "invalid",
    UndecodableImageError: "invalid",
    TooManyPixelsError: "invalid",
    QueueFullError: "rejected",
    NotReadyError: "rejected",
    DeadlinePassedError: "deadline",
    asyncio.CancelledError: "cancelled",
}
ANSWERED = "answered"
FAILED = "failed"
RECOVERY_PAUSES_SECONDS = (0.1, 0.5, 1, 2, 5, 10, 30)


class Gateway:
    """Answers queries while it is open; `open` warms the engine up and, at the end, drains.

    Args:
        settings: of the service.
        engine: what purifies and classifies.
        metrics: where outcomes and times are counted.
        on_dead: called if the warm-up fails, since nothing can then be served.
    """

    def __init__(self, settings: Settings, engine: Engine, metrics: Metrics, on_dead: Callable[[], None]) -> None:
        self.engine = engine
        self.readiness = Readiness(metrics)
        self._metrics = metrics
        self._deadline_seconds = settings.request_deadline_ms / 1000
        self._drain_seconds = settings.drain_timeout_ms / 1000
        self._capacity = settings.queue_capacity
        self._on_dead = on_dead
        self._decoder = ImageDecoder(engine.manifest.preprocessing, settings.max_pixels)
        self._decoders = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
        self._decoding = 0
        self._faulted = False
        self._drained_by: float | None = None
        waited = metrics.stage_duration.labels(stage="queue").observe
        self._batcher: Batcher[Pixels, Scores] = Batcher(
            self._run_engine, settings.max_batch, settings.queue_capacity, on_wait=waited
        )
        metrics.queue_capacity.set(settings.queue_capacity)
        metrics.queue_depth.set_function(lambda: self._batcher.depth)
        for outcome in {ANSWERED, FAILED, *OUTCOMES.values()}:
            metrics.queries.labels(outcome=outcome)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Serves queries: not ready until the warm-up is over, and drained at the end."""
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            stack.enter_context(self._decoders)
            self._batcher.start()
            stack.push_async_callback(self._close_batcher)
            self._upkeep = asyncio.create_task(self._warm_up())
            stack.callback(self._stop_upkeep)
            stack.callback(self.drain)
            yield

    def drain(self) -> None:
        """Refuses new queries from now on; those accepted are still answered."""
        if self._drained_by is None:
            self._drained_by = time.monotonic() + self._drain_seconds
        self.readiness.change("draining")

    def drain_soon(self) -> None:
        """The same from a signal handler, which must not wait for a lock that the interrupted code may hold."""
        self._loop.call_soon_threadsafe(self.drain)

    def refuse_unless_open(self, images: int = 1) -> None:
        """Spares the reading of a body, or the counting of its images, that would not be answered; counts the refusal.

        Raises:
            NotReadyError: the service is loading, draining or recovering.
            QueueFullError: the images would not fit the queue.
        """
        try:
            self._admit(images)
        except (NotReadyError, QueueFullError):
            self._metrics.queries.labels(outcome="rejected").inc(images)
            raise

    def _admit(self, images: int) -> None:
        self.readiness.require()
        if self._batcher.depth + self._decoding + images > self._capacity:
            raise QueueFullError("too many queries wait", self._batcher.backlog_seconds())

    async def classify(self, contents: Sequence[bytes]) -> list[Scores]:
        """The scores of each image, in order; all of them or an error.

        Cancelling the call drops its queries, unless the device has them already.

        Raises:
            NotReadyError, QueueFullError: refused at once.
            UnsupportedImageTypeError, UndecodableImageError, TooManyPixelsError: one of the images is not served.
            DeadlinePassedError: the answer was not there in time.
            DeviceFaultError: the device failed.
        """
        outcome = ANSWERED
        try:
            return await self._answer(contents)
        except BaseException as error:
            outcome = OUTCOMES.get(type(error), FAILED)
            if isinstance(error, asyncio.CancelledError):
                self._metrics.cancelled.inc(len(contents))
            raise
        finally:
            self._metrics.queries.labels(outcome=outcome).inc(len(contents))

    async def _answer(self, contents: Sequence[bytes]) -> list[Scores]:
        self._admit(len(contents))
        deadline = time.monotonic() + self._deadline_seconds
        try:
            async with asyncio.timeout(self._deadline_seconds):
                pixels = await self._decode(contents)
                futures = self._batcher.submit(pixels, deadline)
                try:
                    scores = list(await asyncio.gather(*map(asyncio.wrap_future, futures)))
                finally:
                    for future in futures:
                        future.cancel()
        except TimeoutError as error:
            raise DeadlinePassedError(f"no answer within {self._deadline_seconds:g} s") from error
        if not np.isfinite(scores).all():
            log.error("scores_not_finite", queries=len(contents))
            raise DeviceFaultError("the networks gave no finite scores for this query", RETRY_AFTER_SECONDS)
        return scores

    async def _decode(self, contents: Sequence[bytes]) -> list[Pixels]:
        begin = time.perf_counter()
        self._decoding += len(contents)
        decoding = [self._loop.run_in_executor(self._decoders, self._decoder.decode, one) for one in contents]
        try:
            pixels = list(await asyncio.gather(*decoding))
        finally:
            for one in decoding:
                one.cancel()  # after a bad image nobody waits for the others
            self._decoding -= len(contents)
        seconds = time.perf_counter() - begin
        for _ in contents:
            self._metrics.stage_duration.labels(stage="decode").observe(seconds)
        return pixels

    def _run_engine(self, images: list[Pixels]) -> list[Scores]:
        """Called by the batcher, in its thread; after a fault nothing more goes to the device until it is recovered."""
        if self._faulted:
            raise DeviceFaultError("the device failed before this query", RETRY_AFTER_SECONDS)
        try:
            return self.engine.classify(images)
        except Exception as error:
            log.exception("device_fault", queries=len(images))
            self._faulted = True
            self._loop.call_soon_threadsafe(self._start_recovery)
            raise DeviceFaultError("the device failed on this query", RETRY_AFTER_SECONDS) from error

    async def _warm_up(self) -> None:
        begin = time.perf_counter()
        try:
            await asyncio.to_thread(self.engine.warm_up)
        except Exception:
            log.exception("warm_up_failed")
            self.readiness.change("fault")
            self._on_dead()
            return
        self.readiness.change("ready")
        log.info("ready", warm_up_seconds=round(time.perf_counter() - begin, 3))

    async def _close_batcher(self) -> None:
        """Waits for what is left of the time to drain, of which the server may have used some."""
        left = (self._drained_by or 0) - time.monotonic()
        await asyncio.to_thread(self._batcher.close, max(0, left))

    def _stop_upkeep(self) -> None:
        self._upkeep.cancel()

    def _start_recovery(self) -> None:
        self.readiness.change("fault")
        if self._upkeep.done() and self.readiness.state != "draining":
            self._upkeep = asyncio.create_task(self._recover())

    async def _recover(self) -> None:
        """After a fault: repeats the warm-up until it passes, ever more patiently."""
        for pause in chain(RECOVERY_PAUSES_SECONDS, repeat(RECOVERY_PAUSES_SECONDS[-1])):
            await asyncio.sleep(pause)
            try:
                await asyncio.to_thread(self.engine.warm_up)
            except Exception:
                log.exception("recovery_failed")
            else:
                self._faulted = False
                self.readiness.change("ready")
                log.info("recovered")
                return
