"""What is compared with what, and with which goal: ratios of slices of the same round, and their spread.

Slices that others on the machine disturbed do not count, unless all are of that kind.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from pydantic import BaseModel, ConfigDict, NonNegativeFloat

from benchmarks.passes import Pass
from benchmarks.slices import Slice
from benchmarks.systems import (
    BARE,
    DEFENDED,
    ENSEMBLE,
    FASTAPI,
    LITSERVE,
    MOSEC,
    NO_OP,
    PLAIN_FASTAPI,
    PLAIN_LITSERVE,
    PLAIN_MOSEC,
)
from models.bundle import Manifest

OFFLINE_BARE, OFFLINE_DEFENDED = "offline, bare", "offline, defended"
ALONE = "no-op, one connection"
DEFENDED_OFFLINE = "defended over undefended, offline"
MANY = 10
"""From so many rounds on the spread is that of the middle half; of fewer it is that of all."""


class Figure(BaseModel):
    """One line of what was to be shown.

    Attributes:
        name: of the figure.
        median: over the rounds.
        low: the lowest of the rounds, or the first quartile of many.
        high: the highest, or the third quartile.
        rounds: how many there were.
        at_least: the goal, if it is one.
        at_most: likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    median: NonNegativeFloat
    low: NonNegativeFloat
    high: NonNegativeFloat
    rounds: int
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the median meets the goal; none without one."""
        if self.at_least is not None:
            return self.median >= self.at_least
        return self.median <= self.at_most if self.at_most is not None else None


@dataclass(frozen=True)
class _Comparison:
    name: str
    above: str
    below: str
    at_least: float | None = None


COMPARISONS = (
    _Comparison("served over offline, undefended", BARE, OFFLINE_BARE, 0.90),
    _Comparison("served over offline, defended", DEFENDED, OFFLINE_DEFENDED, 0.90),
    _Comparison(DEFENDED_OFFLINE, OFFLINE_DEFENDED, OFFLINE_BARE),
    _Comparison("defended over undefended, served", DEFENDED, BARE),
    _Comparison("defended over disco-ensemble, served", DEFENDED, ENSEMBLE),
    _Comparison("undefended over LitServe", BARE, LITSERVE, 1.2),
    _Comparison("undefended over mosec", BARE, MOSEC, 1.0),
    _Comparison("undefended over FastAPI with threads", BARE, FASTAPI),
    _Comparison("undefended over plain LitServe", BARE, PLAIN_LITSERVE, 1.2),
    _Comparison("undefended over plain mosec", BARE, PLAIN_MOSEC, 1.0),
    _Comparison("undefended over plain FastAPI", BARE, PLAIN_FASTAPI),
    _Comparison("defended over plain LitServe, which defends nothing", DEFENDED, PLAIN_LITSERVE),
    _Comparison("defended over LitServe, which defends nothing", DEFENDED, LITSERVE),
)


DEFENDED_GOALS = (
    (("cpu", {"kind": "resnet", "width": 64, "blocks": (2, 2, 2, 2)}, 32, 32), 0.70),
    (("cuda", {"kind": "wide-resnet", "depth": 28, "widening": 10}, 32, 32), 0.85),
    (("cuda", {"kind": "torchvision", "name": "resnet50"}, 224, 224), 0.60),
)
"""Each beside what it is the goal of: a device's type, a classifier's architecture, the height and width of images."""


def defended_goal(manifest: Manifest, device: str) -> float | None:
    """The least that defended over undefended has to be; none where nothing was promised of this classifier there.

    Args:
        manifest: of the bundle.
        device: its type, `cpu` or `cuda`.
    """
    size = manifest.preprocessing
    served = (device, manifest.classifier.architecture.model_dump(), size.height, size.width)
    return next((goal for which, goal in DEFENDED_GOALS if which == served), None)


def figures(
    slices: Mapping[str, Sequence[Slice]], passes: Sequence[Pass], defended: float | None = None
) -> tuple[Figure, ...]:
    """All that there are slices and passes for; none of a system that answered nothing which others are compared with.

    Args:
        slices: of each system, by its name.
        passes: of pools of several sizes.
        defended: the goal for defended over undefended, if there is one.
    """
    found = (*_throughputs(slices, defended), *_passes(passes), *_overhead(slices))
    return tuple(one for one in found if one.rounds)


def _throughputs(slices: Mapping[str, Sequence[Slice]], defended: float | None) -> Iterator[Figure]:
    for one in COMPARISONS:
        if one.above in slices and one.below in slices:
            pairs = list(zip(slices[one.above], slices[one.below], strict=True))
            quiet = [pair for pair in pairs if not any(taken.disturbed for taken in pair)]
            above, below = ([taken.per_second for taken in side] for side in zip(*(quiet or pairs), strict=True))
            goal = defended if one.name == DEFENDED_OFFLINE else one.at_least
            yield _figure(one.name, paired(above, below), at_least=goal)


def _passes(passes: Sequence[Pass]) -> Iterator[Figure]:
    by_size = {(one.device, one.batch, one.purifiers): one for one in passes}
    for device, batch in dict.fromkeys((one.device, one.batch) for one in passes):
        largest = max(one.purifiers for one in passes)
        if largest > 1:
            above, below = (by_size[device, batch, size].pass_ms for size in (largest, 1))
            name = f"pass of {largest} purifiers over 1, batch {batch}, {device}"
            yield _figure(name, paired(above, below), at_most=1.10)


def _overhead(slices: Mapping[str, Sequence[Slice]]) -> Iterator[Figure]:
    times = [one.p50_ms for one in undisturbed(slices.get(ALONE, ())) if one.p50_ms is not None]
    if times:
        yield _figure(f"{NO_OP} engine, one connection, p50 in ms", times, at_most=2)


def undisturbed(slices: Sequence[Slice]) -> Sequence[Slice]:
    """Those that count; all of them where none would."""
    return [one for one in slices if not one.disturbed] or slices


def paired(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """The ratio of each round; a round in which the lower one did nothing has none.

    Raises:
        ValueError: they are not of the same rounds.
    """
    return [one / other for one, other in zip(above, below, strict=True) if other]


def _figure(
    name: str, values: Sequence[float], *, at_least: float | None = None, at_most: float | None = None
) -> Figure:
    middle, low, high = spread(values)
    return Figure(name=name, median=middle, low=low, high=high, rounds=len(values), at_least=at_least, at_most=at_most)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and between what most values are: all of a few, the middle half of many; zeros if there is none."""
    if not values:
        return 0.0, 0.0, 0.0
    if len(values) < MANY:
        return median(values), min(values), max(values)
    low, middle, high = quantiles(values, n=4)
    return middle, low, high
