"""One attack on a batch of images: what it has asked, what it has hit, and which images it is done with."""

from enum import StrEnum

import torch
from torch import Tensor

from evaluation.ball import Ball
from evaluation.criteria import misread
from evaluation.oracle import Oracle

FIRST_CHECKS = 2
CHECKS = 9
LUCK = 10
"""Right answers that a checked candidate starts with, so that one wrong of two is no more than three of nine."""
ROUNDING = 1e-3
"""What float32 arithmetic may lack of a whole level."""


class Stopping(StrEnum):
    """When an attack is done with an image.

    A randomized defense misreads now and then. Whoever stops at the first wrong answer has seen one, but hands in an
    image that mostly passes; so the default asks again, and pays for it, before it believes.
    """

    HIT = "hit"
    CONFIRMED = "confirmed"
    BUDGET = "budget"


class Trial:
    """What an attack sees and what is noted about it.

    A candidate hits if its answer is wrong and what the target saw of it, after rounding, is in the ball; one that
    rounding alone would carry out of the ball is rounded towards the clean image instead. When the rule is `confirmed`,
    a hit is asked about again: twice, and if both answers are wrong, up to nine times in all; the image is finished if
    most are wrong.

    Args:
        oracle: whom the attack asks.
        images: `(N, 3, H, W)` float32 in [0, 1], on the device of the attack.
        labels: `(N,)` int64, on the same device.
        ball: how far the attack may go.
        stopping: when an image is finished.

    Attributes:
        first_hits: `(N,)` int64, the number of the query that first hit, counted from 1; 0 where none did.
        finished: `(N,)` bool, on the CPU: images that the attack is done with.
        found: `(N, 3, H, W)`, what hit each finished image; of others, what was wrong most often when it was asked
            about again.
    """

    def __init__(self, oracle: Oracle, images: Tensor, labels: Tensor, ball: Ball, stopping: Stopping) -> None:
        self.oracle = oracle
        self.images = images
        self.labels = labels
        self.ball = ball
        self.stopping = stopping
        self.first_hits = torch.zeros(len(images), dtype=torch.int64)
        self.finished = torch.zeros(len(images), dtype=torch.bool)
        self.found = images.clone()
        self._promise = torch.zeros(len(images))
        """How often `found` is wrong, as far as it was asked about again."""

    def active(self, queries: int = 1) -> Tensor:
        """The images that are not finished and have at least so many queries left: `(R,)` int64, on the CPU."""
        return (~self.finished & (self.oracle.budget - self.oracle.spent >= queries)).nonzero().flatten()

    def able(self, rows: Tensor, queries: int = 1) -> Tensor:
        """Which of `(R,)` images are active, `(R,)` bool."""
        return ~self.finished[rows] & (self.oracle.remaining(rows) >= queries)

    def scores(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """Asks for the scores of `(R, S, 3, H, W)` candidates, `(R, S, classes)`, and notes what hit."""
        before = self.oracle.spent[rows]
        candidates = self._rounded(candidates, self.images[rows, None])
        scores = self.oracle.scores(rows, candidates)
        self._note(rows, candidates, scores.argmax(2), before)
        return scores

    def wrong(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """Asks for the labels of `(R, S, 3, H, W)` candidates, and notes what hit; `(R, S)` bool: wrong ones."""
        before = self.oracle.spent[rows]
        candidates = self._rounded(candidates, self.images[rows, None])
        answers = self.oracle.labels(rows, candidates)
        self._note(rows, candidates, answers, before)
        return misread(answers, self.labels[rows])

    def returned(self, incumbents: Tensor) -> Tensor:
        """What the attack hands in, in the ball and as the target sees it.

        That is what finished an image, else what was wrong again when it was asked about again, else the attack's own
        of the `(N, 3, H, W)`.
        """
        mine = self._rounded(self.ball.project(incumbents, self.images), self.images)
        own = self.finished | (self._promise > 0)
        return torch.where(own.to(mine.device)[:, None, None, None], self.found, mine)

    def _rounded(self, candidates: Tensor, centers: Tensor) -> Tensor:
        """`(..., 3, H, W)` as the target sees them; those in the ball stay there, given centers that are rounded."""
        levels = self.oracle.target.levels
        if not levels:
            return candidates
        nearest = torch.round(candidates * levels) / levels
        steps = (candidates - centers) * levels
        inner = centers + torch.trunc(steps + ROUNDING * steps.sign()) / levels
        leaves = self.ball.contains(candidates, centers) & ~self.ball.contains(nearest, centers)
        return torch.where(leaves[..., None, None, None], inner, nearest)

    def _note(self, rows: Tensor, candidates: Tensor, answers: Tensor, before: Tensor) -> None:
        allowed = self.ball.contains(candidates, self.images[rows, None])
        hits = (misread(answers, self.labels[rows]) & allowed).cpu()
        new = hits.any(1) & ~self.finished[rows]
        if not new.any():
            return
        first = hits[new].int().argmax(1)
        rows, hit = rows[new], candidates[new, first]
        self.first_hits[rows] = torch.where(self.first_hits[rows] == 0, before[new] + first + 1, self.first_hits[rows])
        if self.stopping is Stopping.BUDGET:
            return
        asks_again = self.stopping is Stopping.CONFIRMED and not self.oracle.target.deterministic
        done, promise = (
            self._confirmed(rows, hit) if asks_again else (torch.ones_like(rows).bool(), torch.ones(len(rows)))
        )
        better = done | (promise > self._promise[rows])
        self.finished[rows[done]] = True
        self.found[rows[better]], self._promise[rows[better]] = hit[better], promise[better]

    def _confirmed(self, rows: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Asks again; with fewer queries left than it takes, the majority of those there are decides.

        Returns:
            Whether the candidate is confirmed, `(R,)` bool; how often it is wrong, cautiously, `(R,)` in [0, 1).
        """
        wrong, asked = torch.zeros_like(rows), torch.zeros_like(rows)
        for number in range(CHECKS):
            hopeful = wrong == asked if number <= FIRST_CHECKS else torch.ones(len(rows), dtype=torch.bool)
            going = hopeful & (asked == number) & (self.oracle.remaining(rows) > 0)
            if not going.any():
                break
            answers = self.oracle.labels(rows[going], candidates[going, None])
            wrong[going] += misread(answers, self.labels[rows[going]]).squeeze(1).cpu()
            asked[going] += 1
        return 2 * wrong >= torch.where(asked > 0, asked + 1, 0), wrong / (asked + LUCK)
