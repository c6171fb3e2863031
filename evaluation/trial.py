"""One attack on a batch of images: what it has asked, what it has hit, and which images it is done with."""

from enum import StrEnum

import torch
from torch import Tensor

from evaluation.ball import Ball
from evaluation.criteria import misread
from evaluation.oracle import Oracle

FIRST_CHECKS = 2
CHECKS = 9
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

    A candidate hits if its answer is wrong and what the target saw of it, after rounding, is in the ball. When the
    rule is `confirmed`, a hit is asked about again: twice, and if both answers are wrong, up to nine times in all; the
    image is finished if most are wrong.

    Args:
        oracle: whom the attack asks.
        images: `(N, 3, H, W)` float32 in [0, 1], on the device of the attack.
        labels: `(N,)` int64, on the same device.
        ball: how far the attack may go.
        stopping: when an image is finished.

    Attributes:
        first_hits: `(N,)` int64, the number of the query that first hit, counted from 1; 0 where none did.
        finished: `(N,)` bool, on the CPU: images that the attack is done with.
        found: `(N, 3, H, W)`, what hit each finished image.
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

    def active(self, queries: int = 1) -> Tensor:
        """The images that are not finished and have at least so many queries left: `(R,)` int64, on the CPU."""
        return (~self.finished & (self.oracle.budget - self.oracle.spent >= queries)).nonzero().flatten()

    def able(self, rows: Tensor, queries: int = 1) -> Tensor:
        """Which of `(R,)` images are active, `(R,)` bool."""
        return ~self.finished[rows] & (self.oracle.remaining(rows) >= queries)

    def scores(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """Asks for the scores of `(R, S, 3, H, W)` candidates, `(R, S, classes)`, and notes what hit."""
        before = self.oracle.spent[rows]
        scores = self.oracle.scores(rows, candidates)
        self._note(rows, candidates, scores.argmax(2), before)
        return scores

    def wrong(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """Asks for the labels of `(R, S, 3, H, W)` candidates, and notes what hit; `(R, S)` bool: wrong ones."""
        before = self.oracle.spent[rows]
        answers = self.oracle.labels(rows, candidates)
        self._note(rows, candidates, answers, before)
        return misread(answers, self.labels[rows])

    def returned(self, incumbents: Tensor) -> Tensor:
        """What the attack hands in: what finished an image, else the attack's own `(N, 3, H, W)`, in the ball.

        Where the target rounds, the latter is rounded towards the clean image, so that it stays in the ball.
        """
        mine = self.ball.project(incumbents, self.images)
        if levels := self.oracle.target.levels:
            steps = (mine - self.images) * levels
            mine = self.images + torch.trunc(steps + ROUNDING * steps.sign()) / levels
        return torch.where(self.finished.to(mine.device)[:, None, None, None], self.found, mine)

    def _note(self, rows: Tensor, candidates: Tensor, answers: Tensor, before: Tensor) -> None:
        if levels := self.oracle.target.levels:
            candidates = torch.round(candidates * levels) / levels
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
        done = self._confirmed(rows, hit) if self.stopping is Stopping.CONFIRMED else torch.ones_like(rows).bool()
        self.finished[rows[done]] = True
        self.found[rows[done]] = hit[done]

    def _confirmed(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """Asks again; with fewer queries left than it takes, the majority of those there are decides: `(R,)` bool."""
        if self.oracle.target.deterministic:
            return torch.ones(len(rows), dtype=torch.bool)
        wrong, asked = torch.zeros_like(rows), torch.zeros_like(rows)
        for number in range(CHECKS):
            hopeful = wrong == asked if number <= FIRST_CHECKS else torch.ones(len(rows), dtype=torch.bool)
            going = hopeful & (asked == number) & (self.oracle.remaining(rows) > 0)
            if not going.any():
                break
            answers = self.oracle.labels(rows[going], candidates[going, None])
            wrong[going] += misread(answers, self.labels[rows[going]]).squeeze(1).cpu()
            asked[going] += 1
        return 2 * wrong >= torch.where(asked > 0, asked + 1, 0)
