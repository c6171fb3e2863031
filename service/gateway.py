"""The gateway: the way of a query from bytes to scores, through decoding, the queue and the engine."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import structlog

from models.bundle import BundleError, Manifest
from models.device import PlacementError
from models.preprocessing import Pixels
from service.deadline import Deadline
from service.engine import Engine, Prediction
from service.errand import Errand
from service.errors import (
    BundleRefusedError,
    DeadlinePassedError,
    DeviceFaultError,
    NotReadyError,
    QueueFullError,
    ReloadRunningError,
    TooManyPixelsError,
    UndecodableImageError,
    UnsupportedImageTypeError,
)
from service.lane import Health, Lane
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


@dataclass(frozen=True, eq=False)
class Answers:
    """What came of the images of one request.

    Attributes:
        manifest: of the bundle that answered.
        images: as the classifier saw them before any defense, in order.
        predictions: of each.
    """

    manifest: Manifest
    images: list[Pixels]
    predictions: list[Prediction]


class Gateway:
    """Answers queries while it is open; `open` warms the engine up and, at the end, drains.

    Args:
        settings: of the service.
        engine: what purifies and classifies at first.
        load: makes the engine of a bundle that may have changed.
        metrics: where outcomes and times are counted.
        on_dead: called if the engine is beyond recovery, since nothing can then be served.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        load: Callable[[], Engine],
        metrics: Metrics,
        on_dead: Callable[[], None],
    ) -> None:
        self.readiness = Readiness(metrics)
        self._settings = settings
        self._load = load
        self._metrics = metrics
        self._quantum_seconds = settings.response_time_quantum_ms / 1000
        self._drain_seconds = settings.drain_timeout_ms / 1000
        self._on_dead = on_dead
        self._lane = self._make_lane(engine)
        self._replaced: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self._decoders = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
        self._decoding = 0
        self._reserved = 0
        self._counting = threading.Lock()
        self._drained_by: float | None = None
        metrics.queue_capacity.set(settings.queue_capacity)
        metrics.queue_depth.set_function(self._waiting)
        metrics.pool_size.set_function(lambda: len(self.engine.purifiers))
        self._queries = {name: metrics.queries.labels(name) for name in {ANSWERED, FAILED, *OUTCOMES.values()}}
        self._decode_seconds = metrics.stage_duration.labels("decode")
        self._describe()

    @property
    def engine(self) -> Engine:
        """What answers now."""
        return self._lane.engine

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Serves queries: not ready until the warm-up is over, and drained at the end."""
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            stack.callback(self._decoders.shutdown, wait=False, cancel_futures=True)
            self._lane.start()
            stack.push_async_callback(self._close_lanes)
            warming_up = asyncio.create_task(self._warm_up())
            stack.callback(warming_up.cancel)
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
            self._queries["rejected"].inc(images)
            raise

    @contextmanager
    def reserve(self, images: int) -> Iterator[Callable[[], None]]:
        """Keeps places in the queue for images that are not sent yet, so that nobody else takes them meanwhile.

        Gives what `classify` takes them over with.

        Raises:
            NotReadyError, QueueFullError: as `refuse_unless_open` does.
        """
        self.refuse_unless_open(images)
        kept = images
        self._reserved += kept

        def take_over() -> None:
            nonlocal kept
            self._reserved -= kept
            kept = 0

        try:
            yield take_over
        finally:
            take_over()

    def begin(self) -> Deadline:
        """The deadline of a request that was read just now."""
        return Deadline(self._settings.request_deadline_ms / 1000)

    async def classify(
        self,
        contents: Sequence[bytes],
        deadline: Deadline | None = None,
        take_over: Callable[[], None] | None = None,
    ) -> Answers:
        """What the service says of each image, in order; of all of them or an error.

        Cancelling the call drops its queries, unless the device has them already.

        Args:
            contents: the images as they came.
            deadline: of the request; one that begins now by default.
            take_over: gives up the places that `reserve` kept for them.

        Raises:
            NotReadyError, QueueFullError: refused at once.
            UnsupportedImageTypeError, UndecodableImageError, TooManyPixelsError: one of the images is not served.
            DeadlinePassedError: the answer was not there in time.
            DeviceFaultError: the device failed.
        """
        outcome = ANSWERED
        try:
            if take_over:
                take_over()  # nothing can come between here and their way to the decoders
            else:
                self._admit(len(contents))
            return await self._answer(contents, deadline or self.begin())
        except BaseException as error:
            outcome = OUTCOMES.get(type(error), FAILED)
            if isinstance(error, asyncio.CancelledError):
                self._metrics.cancelled.inc(len(contents))
            raise
        finally:
            self._queries[outcome].inc(len(contents))

    async def reload(self) -> Manifest:
        """Loads the bundle anew beside the one that is served, warms it up, and puts it in its place.

        Until then, and if anything is wrong with it, the old one answers. What waits for the old one is answered by it.

        Raises:
            NotReadyError: the service is loading or draining.
            ReloadRunningError: another one is under way.
            BundleRefusedError: the bundle cannot be served; the message says why.
        """
        if self._reloading.locked():
            raise ReloadRunningError("a bundle is being loaded already")
        if self.readiness.state in {"loading", "draining"}:
            self.readiness.require()
        async with self._reloading:
            try:
                lane = await self._load_lane()
            except Exception as error:
                self._metrics.reloads.labels(what="bundle", outcome="failed").inc()
                log.exception("bundle_not_reloaded")
                raise BundleRefusedError(f"the bundle cannot be served: {self._reason(error)}") from error
            if self.readiness.state == "draining":  # meanwhile: the lanes that are closed then have this one not
                await asyncio.to_thread(lane.engine.close)
                self.readiness.require()
            self._swap(lane)
        return lane.engine.manifest

    async def _load_lane(self) -> Lane:
        """A lane for the bundle as it is now, warm."""
        engine = await asyncio.to_thread(self._load)
        try:
            lane = self._make_lane(engine)
            await lane.warm_up()
        except BaseException:
            await asyncio.to_thread(engine.close)
            raise
        return lane

    def _reason(self, error: Exception) -> str:
        """What is wrong with a bundle, without where it lies on this machine; the log has all of it."""
        if isinstance(error, BundleError):
            return str(error).replace(f"{self._settings.bundle}/", "").replace(str(self._settings.bundle), "the folder")
        if isinstance(error, FloatingPointError | PlacementError):
            return str(error)
        return "it failed while it was loaded or warmed up; the log says how"

    def _swap(self, lane: Lane) -> None:
        lane.start()
        old, self._lane = self._lane, lane
        closing = asyncio.create_task(old.close(self._drain_seconds))
        self._replaced.add(closing)
        closing.add_done_callback(self._replaced.discard)
        self._describe()
        self._metrics.reloads.labels(what="bundle", outcome="done").inc()
        self.readiness.change("ready")
        manifest = lane.engine.manifest
        log.info("bundle_reloaded", bundle=manifest.name, version=manifest.version)

    def _describe(self) -> None:
        manifest = self.engine.manifest
        labels = {"name": manifest.name, "version": manifest.version, "defense": self._settings.defense}
        self._metrics.bundle.info(labels)

    def _make_lane(self, engine: Engine) -> Lane:
        return Lane(self._settings, engine, self._metrics, self._changed)

    def _changed(self, lane: Lane, health: Health) -> None:
        if lane is not self._lane:
            return
        if health == "dead":
            self.readiness.change("fault")
            self._on_dead()
        else:
            self.readiness.change(health)

    def _waiting(self) -> int:
        """Images that have a place in the queue: those in it, and those on their way there."""
        return self._lane.depth + self._decoding + self._reserved

    def _admit(self, images: int) -> None:
        self.readiness.require()
        if self._waiting() + images > self._settings.queue_capacity:
            raise QueueFullError("too many queries wait", self._lane.backlog_seconds())

    async def _answer(self, contents: Sequence[bytes], deadline: Deadline) -> Answers:
        async with deadline.enforced():
            answers = await self._ask(contents, deadline.end)
        if not all(np.isfinite(one.scores).all() for one in answers.predictions):
            log.error("scores_not_finite", queries=len(contents))
            raise DeviceFaultError("the networks gave no finite scores for this query", RETRY_AFTER_SECONDS)
        if self._quantum_seconds:
            await asyncio.sleep(deadline.hold_seconds(self._quantum_seconds))
        return answers

    async def _ask(self, contents: Sequence[bytes], deadline: float) -> Answers:
        while True:
            lane = self._lane
            errand = self._send(lane, contents, deadline)
            try:
                predictions = await errand.answered
                return Answers(lane.engine.manifest, errand.images, predictions)
            except NotReadyError:
                if lane is self._lane:
                    raise  # else a new bundle came meanwhile, and it may want another size
            finally:
                errand.cancel()

    def _send(self, lane: Lane, contents: Sequence[bytes], deadline: float) -> Errand:
        with self._counting:
            self._decoding += len(contents)
        return Errand(
            lane,
            lambda: lane is not self._lane,
            contents,
            deadline,
            self._decoders,
            partial(self._decoded, len(contents)),
        )

    def _decoded(self, images: int, seconds: float | None) -> None:
        """Called in any thread after the last of them; without a time, they were not all decoded."""
        with self._counting:
            self._decoding -= images
        if seconds is not None:
            for _ in range(images):
                self._decode_seconds.observe(seconds)

    async def _warm_up(self) -> None:
        begin = time.perf_counter()
        try:
            await self._lane.warm_up()
        except Exception:
            log.exception("warm_up_failed")
            self._changed(self._lane, "dead")
            return
        self.readiness.change("ready")
        log.info("ready", warm_up_seconds=round(time.perf_counter() - begin, 3))

    async def _close_lanes(self) -> None:
        """Waits for what is left of the time to drain, of which the server may have used some."""
        left = max(0, (self._drained_by or 0) - time.monotonic())
        await asyncio.gather(self._lane.close(left), *self._replaced)
