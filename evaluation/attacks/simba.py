"""SimBA (Guo et al. 2019): one pixel's channel after another, up or down, whichever shrinks the margin; l2."""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from evaluation.attacks.attack import L2_ONE, Attack
from evaluation.ball import Ball
from evaluation.criteria import margin
from evaluation.trial import Trial


class SimBA(Attack):
    """In the pixel basis, in an order of its own for each image, projected to the ball, for many images at once.

    A direction that does not help is tried the other way round; both ways count, but for one in which the pixel is
    black or white already, which changes nothing and is not asked. As in Square, the incumbent is measured anew every
    few directions where the target is random.

    Attributes:
        step: how far a channel of a pixel is moved.
        refresh: directions from one measurement of the incumbent to the next; 0 for never, as published.
        samples: queries averaged into each margin.
    """

    ball: ClassVar[Ball] = L2_ONE
    revision: ClassVar[int] = 3
    kind: Literal["simba"] = "simba"
    step: Annotated[float, Field(gt=0)] = 0.2
    refresh: NonNegativeInt = 4
    samples: PositiveInt = 1

    def run(self, trial: Trial, generator: torch.Generator) -> Tensor:
        """Goes on in a new order when it has been through all channels of all pixels."""
        rows = trial.active()
        best = trial.images.clone()
        margins = torch.full(trial.labels.shape, torch.inf, device=best.device)
        margins[rows] = margin(trial.scores(rows, best[rows, None]), trial.labels[rows])[:, 0]
        refresh = 0 if trial.oracle.target.deterministic else self.refresh
        size, tried = best[0].numel(), 0
        order, before = torch.empty(0), torch.empty(0)
        while len(rows := trial.active(self.samples)):
            if tried % size == 0:
                if torch.equal(trial.oracle.spent, before):
                    break  # no direction changes any image
                before = trial.oracle.spent.clone()
                order = torch.rand((len(best), size), generator=generator, device=generator.device).argsort(1)
            if refresh and tried % refresh == refresh - 1:
                margins[rows] = self._margins(trial, rows, best[rows])
            self._try(trial, rows, order[rows, tried % size], best, margins)
            tried += 1
        return best

    def _try(self, trial: Trial, rows: Tensor, channels: Tensor, best: Tensor, margins: Tensor) -> None:
        """Moves one channel of each image up or else down, in `best` and `margins`, if that helps."""
        for step in (self.step, -self.step):
            able = trial.able(rows, self.samples)
            rows, channels = rows[able], channels[able.to(channels.device)]
            if not len(rows):
                return
            change = torch.zeros_like(best[rows]).flatten(1).scatter_(1, channels[:, None], step)
            candidates = trial.ball.project(best[rows] + change.view_as(best[rows]), trial.images[rows])
            changed = (candidates != best[rows]).flatten(1).any(1)
            asked, candidates = rows[changed.cpu()], candidates[changed]
            better = torch.zeros_like(changed)
            if len(asked):
                found = self._margins(trial, asked, candidates)
                helps = found < margins[asked]
                better[changed] = helps
                kept = asked[helps.cpu()]
                best[kept], margins[kept] = candidates[helps], found[helps]
            rows, channels = rows[~better.cpu()], channels[~better]

    def _margins(self, trial: Trial, rows: Tensor, candidates: Tensor) -> Tensor:
        """The margin of each of `(R,)` candidates, averaged over the samples: `(R,)`."""
        asked = candidates[:, None].expand(-1, self.samples, -1, -1, -1)
        return margin(trial.scores(rows, asked), trial.labels[rows]).mean(1)
