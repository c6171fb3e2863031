"""Room: so many windows of a batch are kept for an architecture that more hardly ever draw it."""

from bisect import bisect_left
from functools import lru_cache
from math import log

OVERFLOWS = 1e-9
"""Of all batches at most, in which some architecture is drawn by more windows than it has room for."""


@lru_cache
def room(windows: int, members: int, purifiers: int) -> int:
    """The windows of a batch that an architecture has room for.

    They are as few as Chernoff's bound allows: with p = `members / purifiers`, more than r of M windows draw the
    architecture with a probability of at most exp(-M D(x || p)), where x = (r + 1) / M and D is the divergence of
    Kullback and Leibler. Of `OVERFLOWS` an architecture may take the share p, so that all of them together keep to it.

    Args:
        windows: M; each draws its purifier independently and uniformly.
        members: purifiers of the architecture, at least 1.
        purifiers: of the pool.

    Returns:
        At most `windows`; just that where one architecture is the whole pool.
    """
    if members == purifiers:
        return windows
    share = members / purifiers
    enough = -log(OVERFLOWS * share)
    below_mean = windows * members // purifiers  # the least r for which the bound says anything

    def exponent(kept: int) -> float:
        return windows * _divergence((kept + 1) / windows, share)

    return bisect_left(range(windows), enough, lo=below_mean, key=exponent)


def _divergence(found: float, expected: float) -> float:
    """Of Kullback and Leibler, in nats, between two coins that show heads with probabilities in (0, 1] and (0, 1)."""
    heads = found * log(found / expected)
    return heads if found == 1 else heads + (1 - found) * log((1 - found) / (1 - expected))
