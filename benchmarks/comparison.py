"""Engines beside one another: how many images a second each classifies, in slices that take turns."""

from collections.abc import Mapping, Sequence
from itertools import product
from statistics import median

from benchmarks.offline import Offline

BATCHES = (1, 8, 32)
DEFENSES = ("none", "puridefense")

Figures = dict[str, dict[str, dict[str, float]]]
"""By the kind of slice and the name of the engine."""


def compare(
    engines: Mapping[str, Offline],
    reference: str,
    over: str,
    rounds: int,
    seconds: float,
    batches: Sequence[int] = BATCHES,
) -> Figures:
    """Images a second of each engine behind each defense at each batch size, and their ratios of the same rounds.

    Args:
        engines: by their names.
        reference: the name of the one that the others are compared with.
        over: what the median of the ratios to it is called.
        rounds: in each, every engine has a slice of every kind.
        seconds: length of a slice.
        batches: images of each.
    """
    rates: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for defense, batch in product(DEFENSES, batches):
            for name, engine in engines.items():
                _, rate = engine.rate(defense, seconds, batch)
                rates.setdefault(f"{defense}, batch {batch}", {}).setdefault(name, []).append(rate)
    return {
        kind: {name: _figures(found, by[reference], over) for name, found in by.items()} for kind, by in rates.items()
    }


def _figures(found: list[float], reference: list[float], over: str) -> dict[str, float]:
    ratios = [one / other for one, other in zip(found, reference, strict=True)]
    return {
        "median": round(median(found), 1),
        over: round(median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
    }
