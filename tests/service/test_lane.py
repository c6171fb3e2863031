"""A lane whose engine never recovers."""

import asyncio
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
import structlog

from service.engine import PoolExhaustedError
from service.errors import DeviceFaultError
from service.lane import Health, Lane, Patience
from service.metrics import Metrics
from service.settings import Settings

if TYPE_CHECKING:
    from tests.service.conftest import FakeEngine

PATIENCE_SECONDS = 30
IMAGE = np.zeros((32, 32, 3), np.uint8)


async def test_a_device_that_no_warm_up_brings_back_is_told_to_be_dead(engine: "FakeEngine") -> None:
    told: asyncio.Queue[Health] = asyncio.Queue()
    lane = Lane(Settings(), engine, Metrics(), lambda _lane, health: told.put_nowait(health), patience=Patience((0, 0)))
    lane.start()
    engine.fault = engine.warm_up_fault = RuntimeError("CUDA error")
    with structlog.testing.capture_logs() as lines:
        (future,) = lane.submit([IMAGE], deadline=float("inf"))
        with pytest.raises(DeviceFaultError):
            await asyncio.wrap_future(future)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert [await told.get(), await told.get()] == ["fault", "dead"]
    assert [line["event"] for line in lines] == ["device_fault", "recovery_failed", "recovery_failed", "device_lost"]
    await lane.close(PATIENCE_SECONDS)


async def test_a_warm_up_that_never_ends_is_the_end_of_the_recovery(engine: "FakeEngine") -> None:
    told: asyncio.Queue[Health] = asyncio.Queue()
    patience = Patience(recovery_pauses=(0, 0, 0), warm_up_seconds=0.1)
    lane = Lane(Settings(), engine, Metrics(), lambda _lane, health: told.put_nowait(health), patience)
    lane.start()
    engine.fault = RuntimeError("CUDA error")
    engine.warm.clear()
    with structlog.testing.capture_logs() as lines:
        (future,) = lane.submit([IMAGE], deadline=float("inf"))
        with pytest.raises(DeviceFaultError):
            await asyncio.wrap_future(future)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert [await told.get(), await told.get()] == ["fault", "dead"]
    assert [line["event"] for line in lines] == ["device_fault", "recovery_failed", "device_lost"]
    engine.warm.set()
    await lane.close(PATIENCE_SECONDS)


async def test_an_engine_that_never_gives_a_batch_back_is_dead(engine: "FakeEngine") -> None:
    told: asyncio.Queue[Health] = asyncio.Queue()
    engine.workers = 2
    settings = Settings(request_deadline_ms=200)
    lane = Lane(
        settings, engine, Metrics(), lambda _lane, health: told.put_nowait(health), patience=Patience(batch_seconds=0.1)
    )
    lane.start()
    engine.free.clear()
    with structlog.testing.capture_logs() as lines:
        lane.submit([IMAGE], deadline=float("inf"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await told.get() == "dead"
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("networks_hang", "error")
    engine.free.set()
    await lane.close(PATIENCE_SECONDS)
    assert told.empty()


async def test_faults_of_batches_that_ran_at_once_are_recovered_from_once(engine: "FakeEngine") -> None:
    told: asyncio.Queue[Health] = asyncio.Queue()
    engine.workers = 2
    lane = Lane(
        Settings(), engine, Metrics(), lambda _lane, health: told.put_nowait(health), patience=Patience((0,) * 5)
    )
    lane.start()
    both = threading.Barrier(2)

    def meet() -> None:
        both.wait(PATIENCE_SECONDS)

    engine.on_batch = meet
    engine.fault = RuntimeError("CUDA error")
    engine.warm.clear()
    futures = lane.submit([IMAGE, IMAGE], deadline=float("inf"))
    faults = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
    assert {type(fault) for fault in faults} == {DeviceFaultError}
    engine.warm.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert [await told.get(), await told.get()] == ["fault", "ready"]
    await lane.close(PATIENCE_SECONDS)
    assert told.empty()
    assert (len(engine.batches), engine.warm_ups) == (2, 1)


async def test_a_pool_that_is_used_up_is_the_end_even_after_another_fault(engine: "FakeEngine") -> None:
    told: asyncio.Queue[Health] = asyncio.Queue()
    engine.workers = 2
    lane = Lane(
        Settings(), engine, Metrics(), lambda _lane, health: told.put_nowait(health), patience=Patience((0,) * 5)
    )
    lane.start()
    both, faulted = threading.Barrier(2), threading.Event()

    def fail() -> None:
        if both.wait(PATIENCE_SECONDS) == 0:
            raise RuntimeError("CUDA error")
        assert faulted.wait(PATIENCE_SECONDS)
        raise PoolExhaustedError("none left")

    engine.on_batch = fail
    engine.warm.clear()
    futures = lane.submit([IMAGE, IMAGE], deadline=float("inf"))
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await told.get() == "fault"
        faulted.set()
        assert await told.get() == "dead"
        await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
    engine.warm.set()
    await lane.close(PATIENCE_SECONDS)
    assert told.empty()


async def test_a_device_that_fails_while_its_lane_is_closed_is_not_brought_back(engine: "FakeEngine") -> None:
    told: list[Health] = []
    lane = Lane(Settings(), engine, Metrics(), lambda _lane, health: told.append(health), patience=Patience((0,)))
    lane.start()
    engine.free.clear()
    (future,) = lane.submit([IMAGE], deadline=float("inf"))
    assert await asyncio.to_thread(engine.busy.wait, PATIENCE_SECONDS)
    closing = asyncio.create_task(lane.close(PATIENCE_SECONDS))
    await asyncio.sleep(0)  # it has begun
    engine.fault = RuntimeError("CUDA error")
    engine.free.set()
    with pytest.raises(DeviceFaultError):
        await asyncio.wrap_future(future)
    await closing
    assert told == []
    assert lane._recovery is None
