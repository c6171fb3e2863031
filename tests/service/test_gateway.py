"""The gateway with an engine that can be held and broken."""

import asyncio
import gc
import io
import shutil
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from models.bundle import read_bundle
from models.device import PrecisionMissingError
from models.preprocessing import Pixels
from service.deadline import Deadline
from service.engine import Engine, PoolExhaustedError, Prediction
from service.errors import (
    BundleRefusedError,
    DeadlinePassedError,
    DeviceFaultError,
    GatewayError,
    NotReadyError,
    QueueFullError,
    ReloadRunningError,
    TooManyPixelsError,
    UndecodableImageError,
    UnsupportedImageTypeError,
)
from service.gateway import Answers, Gateway
from service.metrics import Metrics
from service.settings import Settings

if TYPE_CHECKING:
    from tests.service.conftest import FakeEngine

PATIENCE_SECONDS = 30
HOLDING = 7
GARBAGE = b"\x89PNG\r\n\x1a\n no more"


def png(red: int, size: tuple[int, int] = (32, 32)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (red, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def reds(*answers: Answers) -> list[int]:
    """What the fake engine saw of the images that it answers about."""
    return [round(255 * float(one.scores[0])) for each in answers for one in each.predictions]


def seen(engine: "FakeEngine") -> list[int]:
    return [int(image[0, 0, 0]) for batch in engine.batches for image in batch]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - nothing tells us when
            await asyncio.sleep(0.001)


class Opened:
    """A gateway, what it counts, and how often it said that it is dead."""

    def __init__(self, engine: "FakeEngine", **settings: Any) -> None:
        self.metrics = Metrics()
        self.deaths = 0
        self.engine = engine
        self.next_engine = engine
        self.gateway = Gateway(
            Settings(decode_threads=2, **settings), engine, lambda: self.next_engine, self.metrics, self._die
        )

    def _die(self) -> None:
        self.deaths += 1

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"purigate_{name}", labels)

    def outcomes(self) -> dict[str, float]:
        (family,) = (one for one in self.metrics.registry.collect() if one.name == "purigate_queries")
        totals = (sample for sample in family.samples if sample.name.endswith("_total") and sample.value)
        return {sample.labels["outcome"]: sample.value for sample in totals}

    def ask(self, *contents: bytes, deadline: Deadline | None = None) -> "asyncio.Task[Answers]":
        return asyncio.create_task(self.gateway.classify(contents, deadline))

    def hold_decoding(self) -> tuple[threading.Event, threading.Event]:
        """The decoder waits from now on: for the second event, and sets the first as soon as it has an image."""
        decoding, go_on = threading.Event(), threading.Event()
        decode = self.gateway._lane.decoder.decode

        def held(content: bytes) -> Pixels:
            decoding.set()
            assert go_on.wait(PATIENCE_SECONDS)
            return decode(content)

        self.gateway._lane.decoder.decode = held  # type: ignore[method-assign]
        return decoding, go_on

    async def hold(self) -> "asyncio.Task[Answers]":
        """Gives the engine a query that it keeps until it is freed."""
        self.engine.free.clear()
        self.engine.busy.clear()
        held = self.ask(png(HOLDING))
        assert await asyncio.to_thread(self.engine.busy.wait, PATIENCE_SECONDS)
        return held

    async def queued(self, count: int) -> None:
        """Waits until so many wait for the device; the metric counts those that are still decoded, too."""
        await until(lambda: self.gateway._lane.depth == count)


@asynccontextmanager
async def opened(engine: "FakeEngine", **settings: Any) -> AsyncIterator[Opened]:
    service = Opened(engine, **settings)
    async with service.gateway.open():
        await until(lambda: service.gateway.readiness.state != "loading")
        try:
            yield service
        finally:
            engine.free.set()


async def test_answers_come_in_the_order_of_the_images(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        assert reds(await service.ask(png(10), png(200), png(30))) == [10, 200, 30]


async def test_many_at_once_get_their_own_answers(engine: "FakeEngine") -> None:
    async with opened(engine, max_batch=5) as service:
        answers = await asyncio.gather(*(service.ask(png(red)) for red in range(100)))
    assert [reds(answer) for answer in answers] == [[red] for red in range(100)]


async def test_queries_that_wait_become_one_batch(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        asked = [await service.hold(), service.ask(png(1)), service.ask(png(2), png(3))]
        await service.queued(3)
        engine.free.set()
        await asyncio.gather(*asked)
    assert [len(batch) for batch in engine.batches] == [1, 3]


async def test_nobody_is_served_before_the_warm_up_is_over(engine: "FakeEngine") -> None:
    engine.warm.clear()
    service = Opened(engine)
    async with service.gateway.open():
        with pytest.raises(NotReadyError, match="loading"):
            await service.ask(png(1))
        engine.warm.set()
        await until(lambda: service.gateway.readiness.state == "ready")
        assert reds(await service.ask(png(1))) == [1]


async def test_a_warm_up_that_fails_is_the_end(engine: "FakeEngine") -> None:
    engine.warm_up_fault = FloatingPointError("not a number")
    async with opened(engine) as service:
        assert (service.gateway.readiness.state, service.deaths) == ("fault", 1)


async def test_a_fault_is_told_to_all_whose_queries_the_device_had(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        await_held = await service.hold()
        asked = [service.ask(png(1)), service.ask(png(2))]
        await service.queued(2)
        engine.fault = RuntimeError("CUDA error")
        engine.free.set()
        told = await asyncio.gather(await_held, *asked, return_exceptions=True)
    assert [type(one) for one in told] == [DeviceFaultError] * 3


async def test_a_fault_says_nothing_of_the_inside(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        engine.fault = RuntimeError("CUDA error at 0xdeadbeef")
        with pytest.raises(DeviceFaultError, match=r"^the device failed on this query$"):
            await service.ask(png(1))


async def test_after_a_fault_nobody_is_served_until_a_warm_up_passes(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        engine.warm.clear()
        engine.fault = RuntimeError("CUDA error")
        with pytest.raises(DeviceFaultError):
            await service.ask(png(1))
        engine.fault = None
        with pytest.raises(NotReadyError, match="device failed"):
            await service.ask(png(2))
        engine.warm.set()
        await until(lambda: service.gateway.readiness.state == "ready")
        assert reds(await service.ask(png(3))) == [3]


async def test_a_warm_up_that_fails_after_a_fault_is_tried_again(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        warm_ups = engine.warm_ups
        engine.warm_up_fault = engine.fault = RuntimeError("CUDA error")
        with pytest.raises(DeviceFaultError):
            await service.ask(png(1))
        await until(lambda: engine.warm_ups > warm_ups)
        engine.warm_up_fault = engine.fault = None
        await until(lambda: service.gateway.readiness.state == "ready")
        assert service.deaths == 0


async def test_a_service_that_recovers_from_one_fault_recovers_from_the_next(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        for red in (1, 2):
            engine.fault = RuntimeError("CUDA error")
            with pytest.raises(DeviceFaultError):
                await service.ask(png(red))
            engine.fault = None
            await until(lambda: service.gateway.readiness.state == "ready")
        assert reds(await service.ask(png(3))) == [3]


async def test_closing_gives_up_a_recovery(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        engine.warm_up_fault = engine.fault = RuntimeError("CUDA error")
        with pytest.raises(DeviceFaultError):
            await service.ask(png(1))
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_draining_refuses_new_queries(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        service.gateway.drain()
        with pytest.raises(NotReadyError, match="stopping"):
            await service.ask(png(1))


async def test_draining_answers_what_was_accepted(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        held = await service.hold()
        waiting = service.ask(png(1))
        await service.queued(1)
        service.gateway.drain()
        engine.free.set()
        assert reds(await held, await waiting) == [HOLDING, 1]


async def test_closing_waits_for_what_was_accepted(engine: "FakeEngine") -> None:
    async def free_once_it_drains() -> None:
        await until(lambda: service.gateway.readiness.state == "draining")
        engine.free.set()

    service = Opened(engine)
    async with service.gateway.open():
        await until(lambda: service.gateway.readiness.state == "ready")
        held = await service.hold()
        waiting = service.ask(png(1))
        await service.queued(1)
        freeing = asyncio.create_task(free_once_it_drains())
    assert seen(engine) == [HOLDING, 1]
    await freeing
    assert reds(await held, await waiting) == [HOLDING, 1]


async def test_an_answer_that_is_not_there_in_time_is_an_error(engine: "FakeEngine") -> None:
    async with opened(engine, request_deadline_ms=20) as service:
        engine.free.clear()
        with pytest.raises(DeadlinePassedError):
            await service.ask(png(1))


async def test_the_engine_never_sees_a_query_whose_deadline_passed_in_the_queue(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        held = await service.hold()
        with pytest.raises(DeadlinePassedError):
            await service.ask(png(1), deadline=Deadline(0.05))
        engine.free.set()
        await held
        await service.ask(png(2))
    assert seen(engine) == [HOLDING, 2]


async def test_the_engine_never_sees_a_query_whose_client_left(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        held = await service.hold()
        leaving = service.ask(png(1))
        await service.queued(1)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        engine.free.set()
        await held
        await service.ask(png(2))
    assert seen(engine) == [HOLDING, 2]


async def test_what_is_left_of_a_request_that_failed_never_reaches_the_engine(engine: "FakeEngine") -> None:
    steps: SimpleQueue[Exception | None] = SimpleQueue()

    def step() -> None:
        engine.fault = steps.get(timeout=PATIENCE_SECONDS)

    engine.on_batch = step
    async with opened(engine, max_batch=1) as service:
        asked = service.ask(png(1), png(2), png(3))
        steps.put(RuntimeError("CUDA error"))
        with pytest.raises(DeviceFaultError):
            await asked
    assert seen(engine) == [1]


async def test_after_a_fault_what_waits_is_refused_before_it_reaches_the_device(engine: "FakeEngine") -> None:
    async with opened(engine, max_batch=1) as service:
        held = await service.hold()
        waiting = [service.ask(png(red)) for red in (1, 2)]
        await service.queued(2)
        engine.fault = RuntimeError("CUDA error")
        engine.warm.clear()
        engine.free.set()
        for query in (held, *waiting):
            with pytest.raises(DeviceFaultError):
                await query
        engine.fault = None
        engine.warm.set()
    assert seen(engine) == [HOLDING]


async def test_after_a_bad_image_the_rest_of_its_request_is_not_decoded(engine: "FakeEngine") -> None:
    decoded: list[bytes] = []
    begun, go_on = threading.Event(), threading.Event()
    async with opened(engine) as service:
        decode = service.gateway._lane.decoder.decode

        def watched(content: bytes) -> Pixels:
            decoded.append(content)
            if content != GARBAGE:
                begun.set()
                assert go_on.wait(PATIENCE_SECONDS)
            return decode(content)

        service.gateway._lane.decoder.decode = watched  # type: ignore[method-assign]
        others = [png(red) for red in range(1, 9)]
        with pytest.raises(UndecodableImageError):
            await service.ask(others[0], GARBAGE, *others[1:])
        go_on.set()
        assert begun.is_set()
    assert len(decoded) <= 4, "two threads: what they had begun, and no more"


async def test_a_request_refused_before_its_body_is_read_counts_as_rejected(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        service.gateway.drain()
        with pytest.raises(NotReadyError):
            service.gateway.refuse_unless_open()
        assert service.outcomes() == {"rejected": 1}


async def test_queries_whose_client_left_are_counted(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        await service.hold()
        leaving = service.ask(png(1), png(2))
        await service.queued(2)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert (service.value("cancelled_total"), service.outcomes()) == (2, {"cancelled": 2})


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (GARBAGE, UndecodableImageError),
        (b"GIF89a", UnsupportedImageTypeError),
        (png(1, (40, 40)), TooManyPixelsError),
    ],
)
async def test_one_bad_image_refuses_its_request_before_the_engine_sees_any_of_it(
    engine: "FakeEngine", content: bytes, error: type[GatewayError]
) -> None:
    async with opened(engine, max_pixels=1024) as service:
        with pytest.raises(error):
            await service.ask(png(1), content, png(2))
    assert seen(engine) == []


async def test_a_bad_image_harms_no_other_request(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        asked = [service.ask(png(red) if red % 3 else GARBAGE) for red in range(60)]
        told = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(told[red]) for red in range(0, 60, 3)] == [UndecodableImageError] * 20
    answers = [answer for answer in told if not isinstance(answer, BaseException)]
    assert [reds(answer) for answer in answers] == [[red] for red in range(60) if red % 3]


async def test_a_full_queue_refuses_without_even_decoding(engine: "FakeEngine") -> None:
    async with opened(engine, queue_capacity=2, max_images_per_request=2) as service:
        await service.hold()
        waiting = service.ask(png(1), png(2))
        await service.queued(2)
        with pytest.raises(QueueFullError):
            await service.ask(GARBAGE)
        engine.free.set()
        assert reds(await waiting) == [1, 2]


async def test_images_that_are_still_decoded_count_against_the_queue(engine: "FakeEngine") -> None:
    async with opened(engine, queue_capacity=4, max_images_per_request=4) as service:
        decoding, go_on = service.hold_decoding()
        first = service.ask(png(1), png(2), png(3))
        assert await asyncio.to_thread(decoding.wait, PATIENCE_SECONDS)
        with pytest.raises(QueueFullError):
            await service.ask(png(4), png(5))
        go_on.set()
        assert reds(await first) == [1, 2, 3]


async def test_images_on_their_way_to_the_queue_are_told_as_waiting(engine: "FakeEngine") -> None:
    async with opened(engine, queue_capacity=4, max_images_per_request=4) as service:
        decoding, go_on = service.hold_decoding()
        first = service.ask(png(1), png(2), png(3))
        assert await asyncio.to_thread(decoding.wait, PATIENCE_SECONDS)
        assert service.value("queue_depth") == 3
        go_on.set()
        await first
        await until(lambda: service.value("queue_depth") == 0)


async def test_places_that_are_kept_for_images_go_to_nobody_else(engine: "FakeEngine") -> None:
    async with opened(engine, queue_capacity=3, max_images_per_request=3) as service:
        with service.gateway.reserve(2) as take_over:
            with pytest.raises(QueueFullError):
                await service.ask(png(7), png(8))
            assert reds(await service.gateway.classify([png(1), png(2)], take_over=take_over)) == [1, 2]
            assert reds(await service.ask(png(3), png(4), png(5))) == [3, 4, 5]
        with pytest.raises(RuntimeError), service.gateway.reserve(3):
            raise RuntimeError("its quota is used up")
        assert reds(await service.ask(png(3), png(4), png(5))) == [3, 4, 5]


async def test_an_image_that_nobody_waits_for_is_not_kept_in_the_line_before_the_decoders(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        decoding, go_on = service.hold_decoding()
        held = [service.ask(png(1)), service.ask(png(2))]
        assert await asyncio.to_thread(decoding.wait, PATIENCE_SECONDS)
        content = png(3)
        ours = sys.getrefcount(content)
        leaving = service.ask(content)
        await asyncio.sleep(0)
        assert sys.getrefcount(content) > ours
        leaving.cancel()
        await asyncio.wait([leaving])
        del leaving
        gc.collect()
        assert sys.getrefcount(content) == ours
        go_on.set()
        assert [reds(await one) for one in held] == [[1], [2]]


async def test_an_image_is_decoded_and_reaches_the_engine_while_the_event_loop_is_busy(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        asked = service.ask(png(1))
        await asyncio.sleep(0)
        assert engine.busy.wait(PATIENCE_SECONDS)  # holds up the event loop itself
        assert reds(await asked) == [1]


async def test_an_image_whose_client_left_while_it_was_decoded_is_not_queued(engine: "FakeEngine") -> None:
    async with opened(engine, queue_capacity=2, max_images_per_request=2) as service:
        decoding, go_on = service.hold_decoding()
        leaving = service.ask(png(1), png(2))
        assert await asyncio.to_thread(decoding.wait, PATIENCE_SECONDS)
        leaving.cancel()
        await asyncio.wait([leaving])
        go_on.set()
        await until(lambda: service.gateway._decoding == 0)
        assert reds(await service.ask(png(3), png(4))) == [3, 4], "its place in the queue is free again"
    assert seen(engine) == [3, 4]


async def test_an_image_of_which_the_decoder_dies_is_answered_with_its_error(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        service.gateway._lane.decoder.decode = lambda _content: 1 / 0  # type: ignore[method-assign, assignment, return-value]
        with pytest.raises(ZeroDivisionError):
            await service.ask(png(1))
        assert service.outcomes() == {"failed": 1}


async def test_answered_queries_are_counted(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        await service.ask(png(1), png(2))
        assert service.outcomes() == {"answered": 2}


async def test_queries_with_a_bad_image_are_counted(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        await asyncio.wait([service.ask(png(1), GARBAGE)])
        assert service.outcomes() == {"invalid": 2}


async def test_queries_that_a_full_queue_refused_are_counted(engine: "FakeEngine") -> None:
    async with opened(engine, queue_capacity=2, max_images_per_request=2) as service:
        await asyncio.wait([service.ask(png(1), png(2), png(3))])
        assert service.outcomes() == {"rejected": 3}


async def test_queries_that_draining_refused_are_counted(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        service.gateway.drain()
        await asyncio.wait([service.ask(png(1), png(2))])
        assert service.outcomes() == {"rejected": 2}


async def test_queries_past_their_deadline_are_counted(engine: "FakeEngine") -> None:
    async with opened(engine, request_deadline_ms=20) as service:
        engine.free.clear()
        await asyncio.wait([service.ask(png(1), png(2))])
        assert service.outcomes() == {"deadline": 2}


async def test_queries_that_the_device_failed_on_are_counted(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        engine.fault = RuntimeError("CUDA error")
        await asyncio.wait([service.ask(png(1), png(2))])
        assert service.outcomes() == {"failed": 2}


async def test_every_outcome_is_there_before_it_happens(engine: "FakeEngine") -> None:
    service = Opened(engine)
    for outcome in ("answered", "invalid", "rejected", "deadline", "cancelled", "failed"):
        assert service.value("queries_total", outcome=outcome) == 0


async def test_decoding_and_waiting_are_timed_for_each_query(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        await service.ask(png(1), png(2))
        for stage in ("decode", "queue"):
            assert service.value("stage_duration_seconds_count", stage=stage) == 2


async def test_the_event_loop_turns_while_an_image_is_decoded(engine: "FakeEngine") -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((3000, 3000), np.uint8)).save(buffer, "PNG", compress_level=1)
    turns = 0
    async with opened(engine) as service:
        asked = service.ask(buffer.getvalue())
        while not asked.done():
            turns += 1
            await asyncio.sleep(0)
    assert turns > 100


def another(engine: "FakeEngine", version: str = "2") -> "FakeEngine":
    """An engine of a newer bundle."""
    return type(engine)(engine.manifest.model_copy(update={"version": version}))


async def test_after_a_reload_the_new_bundle_answers(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        service.next_engine = another(engine)
        assert (await service.gateway.reload()).version == "2"
        answers = await service.ask(png(1))
    assert answers.manifest.version == "2"
    assert (seen(engine), seen(service.next_engine), service.next_engine.warm_ups) == ([], [1], 1)


async def test_while_the_new_bundle_warms_up_the_old_one_answers(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        service.next_engine = another(engine)
        service.next_engine.warm.clear()
        reloading = asyncio.create_task(service.gateway.reload())
        assert (await service.ask(png(1))).manifest.version == "1"
        service.next_engine.warm.set()
        await reloading
        assert (await service.ask(png(2))).manifest.version == "2"


async def test_what_waits_for_the_old_bundle_is_answered_by_it(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        held = await service.hold()
        waiting = service.ask(png(1))
        await service.queued(1)
        service.next_engine = another(engine)
        await service.gateway.reload()
        assert (await service.ask(png(2))).manifest.version == "2"
        engine.free.set()
        assert [(await one).manifest.version for one in (held, waiting)] == ["1", "1"]
    assert seen(engine) == [HOLDING, 1]


async def test_an_image_that_is_decoded_while_bundles_change_is_decoded_for_the_new_one(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        decoding, go_on = service.hold_decoding()
        asked = service.ask(png(1))
        await asyncio.to_thread(decoding.wait, PATIENCE_SECONDS)
        service.next_engine = another(engine)
        old, may_close = service.gateway._lane, asyncio.Event()
        close = old.close

        async def late(seconds: float) -> None:
            await may_close.wait()
            await close(seconds)

        old.close = late  # type: ignore[method-assign]
        await service.gateway.reload()
        go_on.set()
        answers = await asked
        may_close.set()
    assert answers.manifest.version == "2"
    assert seen(engine) == []


async def test_an_image_that_comes_to_the_old_bundle_as_it_closes_is_answered_by_the_new_one(
    engine: "FakeEngine",
) -> None:
    async with opened(engine) as service:
        service.next_engine = another(engine)
        old = service.gateway._lane
        decoding, decode = service.hold_decoding()
        submit, at_the_queue, go_on = old.submit, threading.Event(), threading.Event()

        def late(images: Sequence[Pixels], deadline: float) -> "list[Future[Prediction]]":
            at_the_queue.set()
            assert go_on.wait(PATIENCE_SECONDS)
            return submit(images, deadline)

        old.submit = late  # type: ignore[method-assign]
        asked = service.ask(png(1))
        await asyncio.to_thread(decoding.wait, PATIENCE_SECONDS)
        decode.set()  # only now: what is decoded at once goes into the queue on the event loop, which must not be held
        await asyncio.to_thread(at_the_queue.wait, PATIENCE_SECONDS)
        await service.gateway.reload()
        await asyncio.gather(*service.gateway._replaced)
        go_on.set()
        assert (await asked).manifest.version == "2"
    assert (seen(engine), seen(service.next_engine)) == ([], [1])


@pytest.mark.parametrize("error", [FloatingPointError, PrecisionMissingError])
async def test_a_bundle_that_cannot_be_warmed_up_leaves_the_old_one_and_says_why(
    engine: "FakeEngine", error: type[Exception]
) -> None:
    async with opened(engine) as service:
        service.next_engine = another(engine)
        service.next_engine.warm_up_fault = error("not in numbers")
        with pytest.raises(BundleRefusedError, match="not in numbers"):
            await service.gateway.reload()
        assert (await service.ask(png(1))).manifest.version == "1"
        assert service.gateway.readiness.state == "ready"
        assert (service.value("reloads_total", what="bundle", outcome="failed"), service.deaths) == (1, 0)


async def test_what_is_wrong_with_a_bundle_is_said_without_where_it_lies(
    engine: "FakeEngine", bundle_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))
    (folder / "pgd-rcan.safetensors").write_bytes(b"damaged")

    def load() -> Engine:
        read_bundle(folder)
        raise AssertionError

    async with opened(engine, bundle=folder) as service:
        service.gateway._load = load
        with pytest.raises(BundleRefusedError, match=r"pgd-rcan\.safetensors: 7 bytes, the manifest says") as refused:
            await service.gateway.reload()
        assert str(tmp_path) not in str(refused.value)


async def test_what_went_wrong_inside_stays_there(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        service.next_engine = another(engine)
        service.next_engine.warm_up_fault = RuntimeError("cannot open /srv/secret")
        with pytest.raises(BundleRefusedError, match="the log says how") as refused:
            await service.gateway.reload()
        assert "/srv" not in str(refused.value)


async def test_an_answer_is_held_as_long_as_the_quantum_says(
    engine: "FakeEngine", monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, slept, sleep = time.monotonic(), [], asyncio.sleep
    now = iter([begin, begin, begin + 0.03])  # as the request is read, as it is taken, as its answer is there

    async def sleep_at_once(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    async with opened(engine, response_time_quantum_ms=100) as service:
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "sleep", sleep_at_once)
            await service.ask(png(1), deadline=Deadline(PATIENCE_SECONDS, lambda: next(now)))
    assert slept == [pytest.approx(0.07)]


async def test_one_reload_at_a_time(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        service.next_engine = another(engine)
        service.next_engine.warm.clear()
        reloading = asyncio.create_task(service.gateway.reload())
        await until(service.gateway._reloading.locked)
        with pytest.raises(ReloadRunningError):
            await service.gateway.reload()
        service.next_engine.warm.set()
        await reloading
        assert service.value("reloads_total", what="bundle", outcome="done") == 1


async def test_a_service_that_drains_loads_no_bundle(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        service.gateway.drain()
        with pytest.raises(NotReadyError):
            await service.gateway.reload()


async def test_a_bundle_that_is_loaded_only_when_the_service_drains_is_closed_and_not_served(
    engine: "FakeEngine",
) -> None:
    async with opened(engine) as service:
        service.next_engine = another(engine)
        service.next_engine.warm.clear()
        reloading = asyncio.create_task(service.gateway.reload())
        await until(service.gateway._reloading.locked)
        service.gateway.drain()
        service.next_engine.warm.set()
        with pytest.raises(NotReadyError):
            await reloading
        assert service.next_engine.is_closed
        assert service.gateway.engine is engine


async def test_a_new_bundle_ends_a_fault_of_the_old_one(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        engine.fault = engine.warm_up_fault = RuntimeError("CUDA error")
        with pytest.raises(DeviceFaultError):
            await service.ask(png(1))
        service.next_engine = another(engine)
        await service.gateway.reload()
        assert reds(await service.ask(png(2))) == [2]


async def test_what_becomes_of_the_old_bundle_is_no_concern_any_more(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        held = await service.hold()
        service.next_engine = another(engine)
        await service.gateway.reload()
        engine.fault = PoolExhaustedError("none left")
        engine.free.set()
        with pytest.raises(DeviceFaultError):
            await held
        assert reds(await service.ask(png(2))) == [2]
        assert (service.gateway.readiness.state, service.deaths) == ("ready", 0)


async def test_a_pool_that_is_used_up_is_the_end(engine: "FakeEngine") -> None:
    async with opened(engine) as service:
        engine.fault = PoolExhaustedError("none left")
        with pytest.raises(DeviceFaultError):
            await service.ask(png(1))
        await until(lambda: service.deaths == 1)
        with pytest.raises(NotReadyError):
            await service.ask(png(2))
