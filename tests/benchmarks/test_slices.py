"""The rate of answers that come in batches, wherever the slice begins and ends."""

import pytest

from benchmarks.slices import Answer, Slice

PERIOD, BATCH, WIDTH = 0.1, 32, 0.03


def batches(count: int) -> list[Answer]:
    """So many batches, each of which takes a while to be answered."""
    return [(PERIOD * number + WIDTH * one / BATCH, 0.2) for number in range(count) for one in range(BATCH)]


def of(answers: list[Answer], begin: float, end: float, connections: int) -> Slice:
    return Slice.of(answers, begin, end, connections, {}, 0)


@pytest.mark.parametrize("begin", [0.5, 0.51, 0.515, 0.529, 0.53, 0.599])
@pytest.mark.parametrize("end", [1.0, 1.01, 1.029, 1.09])
@pytest.mark.parametrize("connections", [BATCH, 2 * BATCH])
def test_whole_batches_are_counted_whatever_the_phase(begin: float, end: float, connections: int) -> None:
    taken = of(batches(20), begin, end, connections)
    assert taken.answered % BATCH == 0
    assert taken.per_second == pytest.approx(BATCH / PERIOD)


def test_steady_answers_have_their_rate() -> None:
    taken = of([(number / 200, number / 1000) for number in range(400)], 0.5, 1.5, 8)
    assert taken.per_second == pytest.approx(200)
    assert taken.answered == pytest.approx(200, abs=8)
    assert taken.p50_ms == pytest.approx(200, abs=8)
    assert taken.p99_ms == pytest.approx(299, abs=8)


def test_a_pause_within_the_slice_lowers_the_rate() -> None:
    first, then = batches(10), [(one + 0.5, latency) for one, latency in batches(20)[10 * BATCH :]]
    assert of([*first, *then], 0.55, 2.05, 32).per_second == pytest.approx(10 * BATCH / 1.5)


@pytest.mark.parametrize("answers", [[], [(0.5, 0.1)]])
def test_without_answers_there_is_no_rate(answers: list[Answer]) -> None:
    taken = of(answers, 0, 1, 4)
    assert (taken.answered, taken.per_second, taken.p50_ms) == (0, 0, None)
