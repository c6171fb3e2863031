"""What times tell, on times that were made."""

import numpy as np
import pytest

from benchmarks.timing import explained

QUERIES = 2000


def test_half_of_the_variance_is_half_a_bit() -> None:
    generator = np.random.default_rng(0)
    factor = generator.normal(size=(QUERIES, 1))
    times = 1 + factor[:, 0] + generator.normal(size=QUERIES)
    found = explained(times, factor)
    assert found["share"] == pytest.approx(0.5, abs=0.05)
    assert found["bits"] == pytest.approx(0.5, abs=0.1)
    assert found["chance"] < 0.002


def test_a_column_that_the_others_give_adds_nothing() -> None:
    generator = np.random.default_rng(0)
    factor = generator.normal(size=(QUERIES, 1))
    times = factor[:, 0] + generator.normal(size=QUERIES)
    assert explained(times, np.hstack([factor, 2 * factor, np.ones_like(factor)])) == explained(times, factor)


def test_times_that_know_nothing_tell_nothing_however_many_columns_there_are() -> None:
    generator = np.random.default_rng(0)
    found = explained(generator.normal(size=QUERIES), generator.normal(size=(QUERIES, 48)))
    assert found["share"] < 0.01
    assert found["bits"] < 0.01
    assert found["chance"] > 0.05
