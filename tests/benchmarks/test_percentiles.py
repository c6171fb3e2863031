"""Percentiles of few and of many values."""

import pytest

from benchmarks.percentiles import percentile


def test_no_percentile_is_beyond_the_largest_value() -> None:
    assert 1 <= (percentile([1, 2, 100], 99) or 0) <= 100


def test_of_many_values_so_many_lie_below() -> None:
    values = [number / 1000 for number in range(1001)]
    assert [percentile(values, percent) for percent in (1, 50, 99)] == pytest.approx([0.01, 0.5, 0.99])


@pytest.mark.parametrize("values", [[], [1.0]])
def test_one_value_has_no_percentiles(values: list[float]) -> None:
    assert percentile(values, 50) is None
