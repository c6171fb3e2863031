"""The three figures of a cell, with what they stand beside; pure functions of outcomes."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.intervals import wilson
from evaluation.verdict import DRAWS, Outcome


@dataclass(frozen=True)
class Share:
    """A share of images, with its 95 % interval over images.

    Attributes:
        value: in [0, 1].
        low: end of the interval.
        high: end of the interval.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: float, total: int) -> "Share":
        """`hits` of `total` images."""
        return cls(hits / total, *wilson(hits, total))

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Summary:
    """Accuracies that are left; an image that is misread without any attack counts as lost in each.

    Attributes:
        images: how many.
        clean: mean accuracy over 20 fresh draws on the clean images.
        any_hit: images of which the attack saw no misclassification within its budget.
        confirmed: images whose attacked version was read rightly by a majority of 9 new queries.
        mean: mean accuracy over 20 fresh draws on what the attack returned.
        queries: the mean number of queries spent on an image.
    """

    images: int
    clean: Share
    any_hit: Share
    confirmed: Share
    mean: Share
    queries: float


def summarize(outcomes: Sequence[Outcome]) -> Summary:
    """The summary of one cell."""
    total = len(outcomes)
    return Summary(
        images=total,
        clean=Share.of(total - sum(one.clean_draws_wrong for one in outcomes) / DRAWS, total),
        any_hit=Share.of(sum(one.first_hit is None for one in outcomes), total),
        confirmed=Share.of(sum(not one.confirmed for one in outcomes), total),
        mean=Share.of(total - sum(one.draws_wrong for one in outcomes) / DRAWS, total),
        queries=sum(one.spent for one in outcomes) / total,
    )


def any_hit_curve(outcomes: Sequence[Outcome], queries: int) -> list[float]:
    """The share of images without a hit after 0, 1, ..., `queries` queries; never rises."""
    left = [len(outcomes)] * (queries + 1)
    for outcome in outcomes:
        for number in range(outcome.first_hit or queries + 1, queries + 1):
            left[number] -= 1
    return [count / len(outcomes) for count in left]
