"""How a device is divided among batches."""

import pytest

from service import workers
from service.workers import Workers, choose_workers


@pytest.fixture(params=[1, 2, 8, 64])
def processors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    count: int = request.param
    monkeypatch.setattr(workers, "processors", lambda: count)
    return count


def test_a_cpu_has_a_worker_for_each_processor_and_many_processors_are_shared_out(processors: int) -> None:
    chosen = choose_workers(None, "cpu")
    assert chosen == Workers(min(processors, 8), max(1, processors // 8))


def test_a_gpu_has_one_worker(processors: int) -> None:  # noqa: ARG001
    assert choose_workers(None, "cuda").count == 1


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_count_that_is_asked_for_is_taken_and_no_worker_is_without_a_thread(processors: int, device: str) -> None:
    assert choose_workers(3, device) == Workers(3, max(1, processors // 3))
