"""Square (Andriushchenko et al. 2020): random squares of full strength, kept where the margin shrinks; l-infinity."""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from evaluation.attacks.attack import LINF_EIGHT, Attack
from evaluation.ball import Ball
from evaluation.criteria import margin
from evaluation.errors import EvaluationError
from evaluation.trial import Trial

SCHEDULE_LENGTH = 10_000
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After which iterations of 10,000 the share of a square halves (section 4.2 and the published code)."""
COLORINGS = 10
"""Drawn at most for a square: of a single pixel one of eight changes nothing."""


class Square(Attack):
    """The l-infinity attack, for many images at once, each with squares of its own.

    On a random target the published rule fails: it keeps the best margin it ever saw, and one lucky draw stays the
    record for good. So here the incumbent is measured anew every few iterations, beside the candidate. On a
    deterministic target nothing is asked twice.

    Squares shrink as published, over 10,000 iterations, whatever the budget: squeezed into 500 queries nine of ten
    squares would be a single pixel, which the draws of a random target drown.

    Attributes:
        p: the share of the image that a square covers at first.
        rescaled: whether the schedule of 10,000 iterations is squeezed into the budget instead.
        refresh: iterations from one measurement of the incumbent to the next; 0 for never, as published.
        samples: queries averaged into each margin.
    """

    ball: ClassVar[Ball] = LINF_EIGHT
    revision: ClassVar[int] = 3
    kind: Literal["square"] = "square"
    p: Annotated[float, Field(gt=0, le=1)] = 0.05
    rescaled: bool = False
    refresh: NonNegativeInt = 4
    samples: PositiveInt = 1

    def run(self, trial: Trial, generator: torch.Generator) -> Tensor:
        """Starts from vertical stripes; the first query of each image is about itself."""
        if trial.ball.norm != "linf":
            raise EvaluationError("Square attacks in the l-infinity ball")
        rows = trial.active()
        trial.scores(rows, trial.images[rows, None])
        best = trial.images.clone()
        rows = trial.active(self.samples)
        if not len(rows):
            return best
        best[rows] = self._stripes(trial, rows, generator)
        margins = torch.full(trial.labels.shape, torch.inf, device=best.device)
        margins[rows] = self._margins(trial, rows, best[rows, None])[:, 0]
        refresh = 0 if trial.oracle.target.deterministic else self.refresh
        each = trial.oracle.budget / self.samples
        iterations = int(each * refresh / (refresh + 1) if refresh else each) or 1
        iteration = 0
        while len(rows := trial.active(self.samples)):
            candidates = self._move(trial, rows, best[rows], self.side(trial, iteration, iterations), generator)
            if refresh and iteration % refresh == refresh - 1 and len(able := trial.active(2 * self.samples)):
                rows, candidates = able, candidates[torch.isin(rows, able)]
                found = self._margins(trial, rows, torch.stack([candidates, best[rows]], dim=1))
                margins[rows] = found[:, 1]
            else:
                found = self._margins(trial, rows, candidates[:, None])
            better = found[:, 0] < margins[rows]
            kept = rows[better.cpu()]
            best[kept], margins[kept] = candidates[better], found[better, 0]
            iteration += 1
        return best

    def side(self, trial: Trial, iteration: int, iterations: int) -> int:
        """Of the square in an iteration, in pixels."""
        if self.rescaled:
            iteration = iteration * SCHEDULE_LENGTH // iterations
        share = self.p / 2 ** sum(iteration > bound for bound in HALVINGS)
        height, width = trial.images.shape[2:]
        return int(max(1, min(round((share * height * width) ** 0.5), height - 1, width - 1)))

    def _margins(self, trial: Trial, rows: Tensor, candidates: Tensor) -> Tensor:
        """The margin of each of `(R, S)` candidates, averaged over the samples: `(R, S)`."""
        asked = candidates.repeat_interleave(self.samples, dim=1)
        margins = margin(trial.scores(rows, asked), trial.labels[rows])
        return margins.view(*candidates.shape[:2], self.samples).mean(2)

    def _stripes(self, trial: Trial, rows: Tensor, generator: torch.Generator) -> Tensor:
        count, channels, _, width = trial.images[rows].shape
        signs = _signs((count, channels, 1, width), generator)
        return (trial.images[rows] + trial.ball.epsilon * signs).clamp(0, 1)

    def _move(self, trial: Trial, rows: Tensor, best: Tensor, side: int, generator: torch.Generator) -> Tensor:
        """Recolors a random square of each image: each channel gets the clean image plus or minus epsilon.

        As in the published code, signs that leave an image as it was are drawn again: no query is spent on it.
        """
        count, channels, height, width = best.shape
        inside = _spans(count, height, side, generator)[:, None, :, None]
        inside = inside & _spans(count, width, side, generator)[:, None, None, :]
        moved = best
        for _ in range(COLORINGS):
            same = (moved == best).flatten(1).all(1)
            if not same.any():
                break
            signs = _signs((count, channels, 1, 1), generator)
            recolored = (trial.images[rows] + trial.ball.epsilon * signs).clamp(0, 1)
            moved = torch.where(inside & same[:, None, None, None], recolored, moved)
        return moved


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(2, shape, generator=generator, device=generator.device) - 1


def _spans(count: int, length: int, side: int, generator: torch.Generator) -> Tensor:
    """`side` neighbors out of `length`, at a random place for each of `count`: `(count, length)` bool."""
    begin = torch.randint(length - side + 1, (count, 1), generator=generator, device=generator.device)
    places = torch.arange(length, device=generator.device)
    return (places >= begin) & (places < begin + side)
