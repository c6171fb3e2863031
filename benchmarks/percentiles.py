"""Percentiles of what was measured."""

from collections.abc import Sequence
from statistics import quantiles

HUNDREDTHS = 100


def percentile(values: Sequence[float], percent: int) -> float | None:
    """That below which so many of the values lie, from 1 to 99; never beyond the largest. None of fewer than two."""
    # What we have are all the values, not a sample of more extreme ones: the default would go on beyond them.
    return quantiles(values, n=HUNDREDTHS, method="inclusive")[percent - 1] if len(values) > 1 else None
