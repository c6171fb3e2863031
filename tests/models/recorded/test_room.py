"""Room for the windows of an architecture: enough but for one batch in a thousand million, and hardly more."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.recorded.room import OVERFLOWS, room

PURIFIERS = 12


def tail(windows: int, kept: int, members: int, purifiers: int) -> Fraction:
    """The exact probability that more than `kept` of independent, uniform draws are of the architecture."""
    ways = sum(
        comb(windows, drawn) * members**drawn * (purifiers - members) ** (windows - drawn)
        for drawn in range(kept + 1, windows + 1)
    )
    return Fraction(ways, purifiers**windows)


@settings(deadline=None, max_examples=100)
@given(windows=st.integers(0, 600), members=st.lists(st.integers(1, 6), min_size=1, max_size=6))
@example(windows=15, members=[1, 1, 1, 1])
@example(windows=1024, members=[3, 3, 3, 3])
@example(windows=1024, members=[1, 11])
def test_hardly_a_batch_overflows(windows: int, members: list[int]) -> None:
    purifiers = sum(members)
    overflows = sum(tail(windows, room(windows, one, purifiers), one, purifiers) for one in members)
    assert overflows < Fraction(OVERFLOWS)


@settings(deadline=None, max_examples=100)
@given(windows=st.integers(0, 5000), members=st.integers(1, PURIFIERS))
def test_there_is_never_more_room_than_there_are_windows(windows: int, members: int) -> None:
    assert 0 <= room(windows, members, PURIFIERS) <= windows


@pytest.mark.parametrize("windows", [16, 64, 256, 1024])
@pytest.mark.parametrize("members", [1, 2, 3, 6, 11])
def test_a_tenth_less_would_be_too_little(windows: int, members: int) -> None:
    less = round(0.9 * room(windows, members, PURIFIERS)) - 1
    assert tail(windows, less, members, PURIFIERS) > Fraction(OVERFLOWS)


def test_one_architecture_has_room_for_all_windows() -> None:
    assert room(1000, PURIFIERS, PURIFIERS) == 1000
