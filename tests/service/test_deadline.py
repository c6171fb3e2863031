"""Deadlines, and how long an answer is held before them."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.deadline import Deadline
from service.errors import DeadlinePassedError

QUANTUM = 0.05


async def test_what_is_not_finished_in_time_is_cut_off() -> None:
    with pytest.raises(DeadlinePassedError, match=r"no answer within 0\.01 s"):
        async with Deadline(0.01).enforced():
            await asyncio.Event().wait()


async def test_what_begins_too_late_is_cut_off() -> None:
    now = iter([0.0, 5.0])
    with pytest.raises(DeadlinePassedError):
        async with Deadline(1, lambda: next(now)).enforced():
            await asyncio.Event().wait()


@given(spent=st.floats(0, 9))
def test_an_answer_is_held_until_a_multiple_of_the_quantum(spent: float) -> None:
    now = iter([100.0, 100.0 + spent])
    held = Deadline(10, lambda: next(now)).hold_seconds(QUANTUM)
    assert 0 <= held <= QUANTUM
    multiples = (spent + held) / QUANTUM
    assert multiples == pytest.approx(round(multiples), abs=1e-6)


@pytest.mark.parametrize(("spent", "held"), [(0.97, 0.03), (1.2, 0)], ids=["near its end", "after it"])
def test_nothing_is_held_past_the_deadline(spent: float, held: float) -> None:
    now = iter([0.0, spent])
    assert Deadline(1, lambda: next(now)).hold_seconds(0.4) == pytest.approx(held)
