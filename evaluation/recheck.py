"""Asking a random target again about what it misread: one wrong answer may be luck."""

from typing import NamedTuple

import torch
from torch import Tensor

from evaluation.criteria import misread
from evaluation.oracle import Oracle

CHECKS = 9
FIRST_CHECKS = 2
"""Answers that must both be wrong before the rest is asked for: most lucky hits end here, for a query or two."""
FIRM = 8
"""Wrong answers of nine with which there is little left to gain, if nine others say so, too: of many candidates that
are checked once, the first to get eight is mostly one that was lucky."""
REVISION = 2
"""Of these rules; one more whenever they give other results than before, on a random target."""
LUCK = 10
"""Right answers that a checked candidate starts with, so that one wrong of two is no more than three of nine."""


class Answers(NamedTuple):
    """About `(R,)` candidates.

    Attributes:
        wrong: `(R,)` int64.
        asked: `(R,)` int64.
        first: `(R,)` int64, the number of the first wrong answer, counted from 1; 0 where none was.
    """

    wrong: Tensor
    asked: Tensor
    first: Tensor

    @property
    def rates(self) -> Tensor:
        """How often each is wrong, cautiously: `(R,)` in [0, 1). Of more than nine answers, what nine would give."""
        return self.wrong / self.asked.clamp_min(1) * (counted := self.asked.clamp_max(CHECKS)) / (counted + LUCK)

    def at(self, chosen: Tensor) -> "Answers":
        """Those about some of the candidates, `(R,)` bool."""
        return Answers(self.wrong[chosen], self.asked[chosen], self.first[chosen])

    def and_then(self, later: "Answers") -> "Answers":
        """These and later ones about the same candidates; none of the latter is the first."""
        return Answers(self.wrong + later.wrong, self.asked + later.asked, self.first)


def ask_again(
    oracle: Oracle,
    labels: Tensor,
    rows: Tensor,
    candidates: Tensor,
    to_reach: Tensor,
    affordable: Tensor,
    first_checks: int = FIRST_CHECKS,
) -> Answers:
    """Asks up to nine times about each candidate, and stops where it cannot be as good as another any more.

    Args:
        oracle: who is asked and counts.
        labels: `(N,)` int64, of all images.
        rows: `(R,)` int64 on the CPU: the images that the candidates belong to.
        candidates: `(R, 3, H, W)` float32.
        to_reach: `(R,)`, the rate of what is already there.
        affordable: `(R,)` int64, queries that each may cost.
        first_checks: answers that must all be wrong for more to be asked.
    """
    answers = Answers(torch.zeros_like(rows), torch.zeros_like(rows), torch.zeros_like(rows))
    wrong, asked, first = answers
    for number in range(CHECKS):
        reachable = (wrong + CHECKS - number) / (CHECKS + LUCK) >= to_reach
        hopeful = (wrong == number) | (number > first_checks)
        going = reachable & hopeful & (asked == number) & (affordable > number)
        if not going.any():
            break
        told = oracle.labels(rows[going], candidates[going.to(candidates.device), None])
        wrong[going] += misread(told, labels[rows[going]]).squeeze(1).cpu()
        asked[going] += 1
        first[(first == 0) & (wrong > 0)] = number + 1
    return answers
