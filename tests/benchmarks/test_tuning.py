"""Which settings are taken."""

import pytest

from benchmarks.record import Trial
from benchmarks.slices import Slice
from benchmarks.systems import System
from benchmarks.tuning import chosen, fastest

VARIANTS = [System("toy", ("toy",), ("--workers", workers)) for workers in ("1", "2")]


def taken(*rates: float, others: float = 0.0) -> tuple[Slice, ...]:
    return tuple(Slice(answered=1, per_second=rate, others=others) for rate in rates)


def trial(workers: str, *, is_chosen: bool, name: str = "toy") -> Trial:
    return Trial(name=name, flags=("--workers", workers), slices=taken(1), chosen=is_chosen)


def test_the_fastest_has_the_best_median() -> None:
    slow, fast = taken(90, 91, 200), taken(100, 101, 102)
    assert fastest([slow, fast]) is fast


def test_a_slice_that_others_disturbed_does_not_decide() -> None:
    steady, disturbed = taken(100, 100), (*taken(110), *taken(50, others=1))
    assert fastest([steady, disturbed]) is disturbed


def test_the_variant_that_was_chosen_is_taken() -> None:
    assert chosen(VARIANTS, [trial("1", is_chosen=False), trial("2", is_chosen=True)]) is VARIANTS[1]


def test_where_nothing_was_tried_the_first_is_taken() -> None:
    assert chosen(VARIANTS, [trial("2", is_chosen=True, name="another")]) is VARIANTS[0]


def test_a_choice_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="toy is not measured with --workers 16 here"):
        chosen(VARIANTS, [trial("16", is_chosen=True)])
