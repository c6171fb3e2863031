"""NES (Ilyas et al. 2018): a gradient estimated from the scores at antithetic random points, then a signed step.

As in the published code, steps follow a running mean of the estimates and shorten where the margin no longer falls.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from evaluation.attacks.attack import LINF_EIGHT, Attack
from evaluation.ball import Ball
from evaluation.criteria import margin
from evaluation.trial import Trial

FEWEST = 3
"""Queries of the smallest step: a pair of points and a look at where it led."""
SHORTENING = 2.0
SHORTEST = 1 / 200
"""Of a step, as a share of the first one."""


class NES(Attack):
    """Projected signed descent of the margin; works in either norm's ball, with the signs of l-infinity.

    Each iteration asks about the points of the estimate and once about the image that the step gave. The last one of
    a budget has fewer points.

    Attributes:
        points: of one estimate, in antithetic pairs.
        sigma: deviation of the points from the image, on pixels in [0, 1].
        step: length of the first step, on pixels in [0, 1]: the learning rate.
        momentum: what the running mean of the estimates keeps of itself in each iteration.
        plateau: iterations over which the margin has to fall, or the step is halved.
    """

    ball: ClassVar[Ball] = LINF_EIGHT
    revision: ClassVar[int] = 3
    kind: Literal["nes"] = "nes"
    points: Annotated[int, Field(ge=2, multiple_of=2)] = 100
    sigma: Annotated[float, Field(gt=0)] = 0.001
    step: Annotated[float, Field(gt=0)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    plateau: Annotated[int, Field(ge=2)] = 5

    def run(self, trial: Trial, generator: torch.Generator) -> Tensor:
        """Starts from the clean image, which the first query of each image is about."""
        rows = trial.active()
        trial.scores(rows, trial.images[rows, None])
        current, course = trial.images.clone(), torch.zeros_like(trial.images)
        steps = _Steps(self.step, self.plateau, trial.labels)
        while len(rows := trial.active(FEWEST)):
            for group, points in self._payable(trial, rows):
                gradient, margins = self._estimate(trial, group, current[group], points, generator)
                course[group] = self.momentum * course[group] + (1 - self.momentum) * gradient
                steps.note(group, margins)
                moved = current[group] - steps.lengths[group, None, None, None] * course[group].sign()
                current[group] = trial.ball.project(moved, trial.images[group])
                still = group[trial.able(group)]
                if len(still):
                    trial.scores(still, current[still, None])
        return current

    def _payable(self, trial: Trial, rows: Tensor) -> Iterator[tuple[Tensor, int]]:
        """Groups of images that can pay equally many points, an even number."""
        points = ((trial.remaining(rows) - 1) // 2 * 2).clamp_max(self.points)
        for count in sorted(set(points.tolist())):
            yield rows[points == count], count

    def _estimate(
        self, trial: Trial, rows: Tensor, current: Tensor, points: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The gradient of the margin times twice sigma, `(R, 3, H, W)`, and the mean margin of the points, `(R,)`."""
        shape = (len(rows), points // 2, *current.shape[1:])
        noise = torch.randn(shape, generator=generator, device=generator.device)
        around = torch.cat([current[:, None] + self.sigma * noise, current[:, None] - self.sigma * noise], dim=1)
        margins = margin(trial.scores(rows, around.clamp(0, 1)), trial.labels[rows])
        above, below = margins.chunk(2, dim=1)
        return torch.einsum("rs,rschw->rchw", above - below, noise) / above.shape[1], margins.mean(1)


class _Steps:
    """How long the step of each image is: half as long once its margin has not fallen over a whole window.

    Args:
        first: length of the first step.
        window: iterations.
        like: `(N,)`, on the device of the attack.

    Attributes:
        lengths: `(N,)`.
    """

    def __init__(self, first: float, window: int, like: Tensor) -> None:
        self.lengths = torch.full(like.shape, first, device=like.device)
        self._shortest = first * SHORTEST
        self._seen = torch.full((*like.shape, window), torch.nan, device=like.device)

    def note(self, rows: Tensor, margins: Tensor) -> None:
        """Adds the margins of an iteration, `(R,)`; a window that made a step shorter begins anew."""
        seen = torch.cat([self._seen[rows, 1:], margins[:, None]], dim=1)
        risen = seen[:, -1] > seen[:, 0]  # never while the window is not full
        shorter = (self.lengths[rows] / SHORTENING).clamp_min(self._shortest)
        self.lengths[rows] = torch.where(risen, shorter, self.lengths[rows])
        self._seen[rows] = torch.where(risen[:, None], torch.nan, seen)
