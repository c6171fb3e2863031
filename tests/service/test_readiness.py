"""Whether the service may be asked."""

import asyncio

import pytest

from service.errors import NotReadyError
from service.metrics import Metrics
from service.readiness import Readiness, State

PATIENCE_SECONDS = 30


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def readiness(metrics: Metrics) -> Readiness:
    return Readiness(metrics)


async def test_whoever_waits_for_the_loading_goes_on_when_it_is_over(readiness: Readiness) -> None:
    waiting = asyncio.create_task(readiness.loaded())
    await asyncio.sleep(0)
    assert not waiting.done()
    readiness.change("ready")
    await asyncio.wait_for(waiting, PATIENCE_SECONDS)


def test_it_starts_as_loading_and_not_ready(readiness: Readiness) -> None:
    assert readiness.state == "loading"
    with pytest.raises(NotReadyError, match="loading"):
        readiness.require()


def test_once_ready_it_lets_requests_pass(readiness: Readiness) -> None:
    readiness.change("ready")
    readiness.require()


@pytest.mark.parametrize(("state", "reason"), [("fault", "device"), ("draining", "stopping"), ("loading", "loading")])
def test_in_any_other_state_it_refuses_and_says_why_and_when_to_come_back(
    readiness: Readiness, state: State, reason: str
) -> None:
    readiness.change("ready")
    readiness.change(state)
    with pytest.raises(NotReadyError, match=reason) as refusal:
        readiness.require()
    assert refusal.value.retry_after > 0


@pytest.mark.parametrize("state", ["ready", "fault", "loading"])
def test_draining_is_final(readiness: Readiness, state: State) -> None:
    readiness.change("draining")
    readiness.change(state)
    assert readiness.state == "draining"


@pytest.mark.parametrize(("state", "value"), [("loading", 0), ("ready", 1), ("fault", 0), ("draining", 0)])
def test_the_metric_follows_the_state(readiness: Readiness, metrics: Metrics, state: State, value: float) -> None:
    readiness.change("ready")
    readiness.change(state)
    assert metrics.registry.get_sample_value("purigate_ready") == value
