"""NES (Ilyas et al. 2018): a gradient estimated from the scores at antithetic random points, then a signed step."""

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


class NES(Attack):
    """Projected signed descent of the margin; works in either norm's ball, with the signs of l-infinity.

    Each iteration asks about the points of the estimate and once about the image that the step gave. The last one of
    a budget has fewer points.

    Attributes:
        points: of one estimate, in antithetic pairs.
        sigma: deviation of the points from the image, on pixels in [0, 1].
        step: length of a step, on pixels in [0, 1]: the learning rate.
    """

    ball: ClassVar[Ball] = LINF_EIGHT
    kind: Literal["nes"] = "nes"
    points: Annotated[int, Field(ge=2, multiple_of=2)] = 100
    sigma: Annotated[float, Field(gt=0)] = 0.001
    step: Annotated[float, Field(gt=0)] = 0.01

    def run(self, trial: Trial, generator: torch.Generator) -> Tensor:
        """Starts from the clean image, which the first query of each image is about."""
        rows = trial.active()
        trial.scores(rows, trial.images[rows, None])
        current = trial.images.clone()
        while len(rows := trial.active(FEWEST)):
            for group, points in self._payable(trial, rows):
                gradient = self._gradient(trial, group, current[group], points, generator)
                moved = current[group] - self.step * gradient.sign()
                current[group] = trial.ball.project(moved, trial.images[group])
                still = group[trial.able(group)]
                if len(still):
                    trial.scores(still, current[still, None])
        return current

    def _payable(self, trial: Trial, rows: Tensor) -> Iterator[tuple[Tensor, int]]:
        """Groups of images that can pay equally many points, an even number."""
        points = ((trial.oracle.remaining(rows) - 1) // 2 * 2).clamp_max(self.points)
        for count in sorted(set(points.tolist())):
            yield rows[points == count], count

    def _gradient(self, trial: Trial, rows: Tensor, current: Tensor, points: int, generator: torch.Generator) -> Tensor:
        """Of the margin, up to a factor: `(R, 3, H, W)`."""
        shape = (len(rows), points // 2, *current.shape[1:])
        noise = torch.randn(shape, generator=generator, device=generator.device)
        around = torch.cat([current[:, None] + self.sigma * noise, current[:, None] - self.sigma * noise], dim=1)
        margins = margin(trial.scores(rows, around.clamp(0, 1)), trial.labels[rows])
        above, below = margins.chunk(2, dim=1)
        return torch.einsum("rs,rschw->rchw", above - below, noise)
