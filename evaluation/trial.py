"""One attack on a batch of images: what it has asked, what it has hit, and which images it is done with."""

from enum import StrEnum

import torch
from torch import Tensor

from evaluation.ball import Ball
from evaluation.criteria import misread
from evaluation.oracle import Oracle
from evaluation.recheck import CHECKS, FIRM, FIRST_CHECKS, LUCK, Answers, ask_again

PAUSE = 5 * CHECKS
"""Queries between two long checks of an image, so that these take about a sixth of its budget; those that go on to a
second nine more."""
QUERIES_PER_RESERVED = 20
"""At most one query of so many is kept for the end."""
ROUNDING = 1e-3
"""What float32 arithmetic may lack of a whole level."""


class Stopping(StrEnum):
    """When an attack is done with an image.

    A randomized defense misreads now and then. Whoever stops at the first wrong answer has seen one, but hands in an
    image that mostly passes; so the default asks again, pays for it, and goes on until hardly any answer is right.
    """

    HIT = "hit"
    CONFIRMED = "confirmed"
    BUDGET = "budget"


class Trial:
    """What an attack sees and what is noted about it.

    A candidate hits if its answer is wrong and what the target saw of it, after rounding, is in the ball; one that
    rounding alone would carry out of the ball is rounded towards the clean image instead.

    When the rule is `confirmed` and the target is random, a hit is asked about again: twice, and if both answers are
    wrong, up to nine times in all; if eight are wrong, nine times more. The image is finished if eight of these are
    wrong, too. Else what was wrong most often is kept, and the attack goes on to make a better one. At the end, up to
    nine queries that no attack can spend before are asked about its own incumbent.

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
        reserve: queries of each image that are kept for the end.
        check_queries: the most that asking again about one hit costs; 0 where hits are not asked about again.
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
        self._doubts = stopping is Stopping.CONFIRMED and not oracle.target.deterministic
        self.check_queries = 2 * CHECKS if self._doubts else 0
        self.reserve = min(CHECKS, oracle.budget // QUERIES_PER_RESERVED) if self._doubts else 0
        self._rates = torch.zeros(len(images))
        """How often `found` is wrong, as far as it was asked about again."""
        self._pause_ends = torch.zeros(len(images), dtype=torch.int64)
        """How many queries of each image are spent when the next hit is asked about again."""

    def remaining(self, rows: Tensor) -> Tensor:
        """How many queries about each of `(R,)` images the attack can still ask, `(R,)` int64."""
        return (self.oracle.remaining(rows) - self.reserve).clamp_min(0)

    def active(self, queries: int = 1) -> Tensor:
        """The images that are not finished and have at least so many queries left: `(R,)` int64, on the CPU."""
        rows = torch.arange(len(self.images))
        return rows[self.able(rows, queries)]

    def able(self, rows: Tensor, queries: int | Tensor = 1) -> Tensor:
        """Which of `(R,)` images are not finished and have so many queries left: `(R,)` bool.

        Args:
            rows: `(R,)` int64 on the CPU.
            queries: for all of them, or `(R,)`, for each.
        """
        return ~self.finished[rows] & (self.remaining(rows) >= queries)

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

    def hand_in(self, incumbents: Tensor) -> Tensor:
        """What the attack hands in, in the ball and as the target sees it; asks about it where queries are left.

        That is what finished an image, else what was wrong most often when it was asked about again, else the attack's
        own of the `(N, 3, H, W)`.
        """
        mine = self._rounded(self.ball.project(incumbents, self.images), self.images)
        if self._doubts:
            self._consider(mine)
        elif self.stopping is not Stopping.BUDGET:
            self._look(mine, ~self.ball.contains(incumbents, self.images).cpu())
        own = self.finished | (self._rates > 0)
        return torch.where(own.to(mine.device)[:, None, None, None], self.found, mine)

    def _consider(self, incumbents: Tensor) -> None:
        """Asks about the last incumbents, which may be better than what was kept on the way."""
        rows = (~self.finished).nonzero().flatten()
        before, affordable = self.oracle.spent[rows], self.oracle.remaining(rows)
        candidates = incumbents[rows]
        answers = ask_again(self.oracle, self.labels, rows, candidates, self._rates[rows], affordable, first_checks=0)
        new = (self.first_hits[rows] == 0) & (answers.first > 0)
        self.first_hits[rows[new]] = (before + answers.first)[new]
        self._keep(rows, candidates, answers.rates)

    def _look(self, incumbents: Tensor, moved: Tensor) -> None:
        """Asks about what was moved into the ball, `(N,)` bool, and so never asked about, where a query is left."""
        rows = self.active()
        rows = rows[moved[rows]]
        if len(rows):
            self.wrong(rows, incumbents[rows, None])

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
        if self._doubts:
            self._check(rows, hit)
        else:
            self.finished[rows], self.found[rows] = True, hit

    def _check(self, rows: Tensor, candidates: Tensor) -> None:
        """Asks again about hits, unless it did at length a moment ago."""
        due = self.oracle.spent[rows] >= self._pause_ends[rows]
        rows, candidates = rows[due], candidates[due.to(candidates.device)]
        answers = ask_again(self.oracle, self.labels, rows, candidates, self._rates[rows], self.remaining(rows))
        firm, rates = answers.wrong >= FIRM, answers.rates
        if firm.any():
            again = self._check_firm(rows[firm], candidates[firm.to(candidates.device)])
            rates[firm] = answers.at(firm).and_then(again).rates
        self._keep(rows, candidates, rates)
        at_length = rows[answers.asked > FIRST_CHECKS]
        self._pause_ends[at_length] = self.oracle.spent[at_length] + PAUSE

    def _check_firm(self, rows: Tensor, candidates: Tensor) -> Answers:
        """Asks as often once more about candidates, and is done with the images of those that are as wrong again."""
        to_reach = torch.full((len(rows),), FIRM / (CHECKS + LUCK))
        affordable = self.remaining(rows)
        again = ask_again(self.oracle, self.labels, rows, candidates, to_reach, affordable, first_checks=0)
        self.finished[rows[again.wrong >= FIRM]] = True
        return again

    def _keep(self, rows: Tensor, candidates: Tensor, rates: Tensor) -> None:
        """Of each image, the candidate that is wrong most often; of two equal ones the later."""
        better = rates >= self._rates[rows]
        self.found[rows[better]] = candidates[better.to(candidates.device)]
        self._rates[rows[better]] = rates[better]
