"""The figures from outcomes that can be counted by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.intervals import wilson
from evaluation.summary import any_hit_curve, summarize
from evaluation.verdict import Outcome


def outcome(first_hit: int | None, checks: int, draws: int, clean: int = 0) -> Outcome:
    return Outcome(
        index=0, first_hit=first_hit, spent=first_hit or 10, checks_wrong=checks, draws_wrong=draws,
        clean_draws_wrong=clean,
    )  # fmt: skip


OUTCOMES = (outcome(1, 9, 20, clean=20), outcome(4, 5, 10), outcome(4, 4, 1, clean=1), outcome(None, 0, 0))


def test_each_figure_counts_what_it_says() -> None:
    summary = summarize(OUTCOMES)

    assert summary.images == 4
    assert summary.clean.value == pytest.approx(1 - 21 / 80)
    assert summary.any_hit.value == pytest.approx(1 / 4)
    assert summary.confirmed.value == pytest.approx(2 / 4)
    assert summary.mean.value == pytest.approx(1 - 31 / 80)
    assert summary.queries == pytest.approx(19 / 4)


def test_the_curve_falls_at_each_first_hit_and_ends_at_the_figure() -> None:
    assert any_hit_curve(OUTCOMES, 5) == [1, 0.75, 0.75, 0.75, 0.25, 0.25]


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (100, 100, 0.9630, 1.0)]
)
def test_wilsons_interval(hits: int, total: int, low: float, high: float) -> None:
    assert wilson(hits, total) == pytest.approx((low, high), abs=1e-4)


@given(total=st.integers(1, 1000), share=st.floats(0, 1))
def test_a_share_lies_in_its_interval(total: int, share: float) -> None:
    """A bar of a figure cannot be drawn with a length below 0."""
    low, high = wilson(share * total, total)

    assert low <= share * total / total <= high


@pytest.mark.parametrize(("hits", "total"), [(300, 300), (0, 1000)])
def test_an_end_that_rounding_would_carry_past_the_share_is_the_share(hits: int, total: int) -> None:
    low, high = wilson(hits, total)

    assert low <= hits / total <= high
