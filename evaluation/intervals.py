"""Confidence intervals of shares."""

from statistics import NormalDist

CONFIDENCE = 0.95


def wilson(hits: float, total: int) -> tuple[float, float]:
    """The interval of a share by Wilson's score, which holds near 0 and 1, too (Wilson 1927).

    Args:
        hits: how many of `total`; a fraction where each of them is itself a mean, which makes the interval too wide.
        total: of independent images.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share = hits / total
    center = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * (share * (1 - share) / total + z**2 / (4 * total**2)) ** 0.5
    return max(0.0, min(share, center - half)), min(1.0, max(share, center + half))  # rounding may carry an end past it
