"""The boundary attack (Brendel et al. 2018): a random walk along the boundary towards the clean image; labels, l2."""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from evaluation.attacks.attack import L2_ONE, Attack
from evaluation.attacks.footing import CHECKS, Footing
from evaluation.attacks.start import misread_starts
from evaluation.ball import Ball
from evaluation.trial import Trial

BLENDS = 10
"""Halvings of the line from the start to the clean image."""
LOOK_EVERY = 10
WINDOW = 10
SPHERICAL_SHARES = (0.2, 0.5)
SOURCE_SHARES = (0.1, 0.25)
MOST = 3
"""Queries of one step: between the moves, after them, and again."""


class Boundary(Attack):
    """Each step moves at random on the sphere around the clean image, then towards it, and is kept if misread.

    Every tenth step asks about the image between the two moves, too: when few of these are misread the boundary is
    rough and both steps shrink, when many are it is flat and they grow. The step towards the clean image adapts to the
    share of kept steps. Foolbox notes only every tenth step, and adapts after 300 of them the source step, after 1,000
    both; here it is after 10 and 100, so that a few hundred queries come nearer (on a small network two thirds as far
    after 500 and less than half as far after 2,500), and an image whose boundary is reached is given up earlier.

    A random target may misread a step by luck, and all steps from there would be read rightly. So there a wrong answer
    is asked for again before the step is kept, the incumbent is looked at again every few steps, and where it is read
    rightly the walk goes back to the last one that was confirmed and its steps grow back. No image is given up. What is
    handed in of an image that came into the ball is as far away as the ball allows.

    Attributes:
        spherical_step: length of the first move, as a share of the distance.
        source_step: length of the second.
        converged: the source step at which an image is given up; where the target is random, at which both start anew.
        adaptation: the factor by which steps grow and shrink.
        attempts: images that are tried as a start.
        refresh: steps from one look at the incumbent to the next, where the target is random; 0 for the published rule.
    """

    ball: ClassVar[Ball] = L2_ONE
    revision: ClassVar[int] = 6
    kind: Literal["boundary"] = "boundary"
    spherical_step: Annotated[float, Field(gt=0)] = 0.01
    source_step: Annotated[float, Field(gt=0)] = 0.01
    converged: Annotated[float, Field(gt=0)] = 1e-7
    adaptation: Annotated[float, Field(gt=1)] = 1.5
    attempts: PositiveInt = 100
    refresh: NonNegativeInt = 10

    def run(self, trial: Trial, generator: torch.Generator) -> Tensor:
        """Blends the start with the clean image as far as it stays misread, and walks from there."""
        started, current = misread_starts(trial, self.attempts, generator)
        rows = started
        footing = Footing(current)
        self._blend(trial, rows, current)
        refresh = 0 if trial.oracle.target.deterministic else self.refresh
        walk = _Walk(self, len(current), doubtful=refresh > 0)
        kept = MOST + CHECKS + trial.check_queries if refresh else 1
        while len(rows := rows[trial.able(rows, kept) & ~walk.converged(rows)]):
            if refresh and walk.steps % refresh == 0:
                walk.restart(footing.regain(trial, rows, current))
            self._move(trial, rows[trial.able(rows)], current, walk, generator)
            if refresh:
                walk.restart(rows[walk.converged(rows)])
        if not refresh:
            return current
        return footing.end(trial, started, current)

    def _move(self, trial: Trial, rows: Tensor, current: Tensor, walk: "_Walk", generator: torch.Generator) -> None:
        """One step of images of `current`, and what is learned of it."""
        around, nearer = self._proposals(trial, rows, current[rows], walk, generator)
        if walk.steps % LOOK_EVERY == 0:
            able = trial.able(rows, 2)
            looked = rows[able]
            if len(looked):
                walk.note_spherical(looked, trial.wrong(looked, around[able.to(around.device), None])[:, 0])
        walk.steps += 1
        able = trial.able(rows)
        asked, nearer = rows[able], nearer[able.to(nearer.device)]
        kept = _misread(trial, asked, nearer)
        if walk.doubtful:
            again = kept.nonzero().flatten()
            able = trial.able(asked[again])
            kept[again[~able]] = False
            again = again[able]
            kept[again] = _misread(trial, asked[again], nearer[again.to(nearer.device)])
        walk.note_source(asked, kept)
        current[asked[kept]] = nearer[kept.to(nearer.device)]

    def _blend(self, trial: Trial, rows: Tensor, current: Tensor) -> None:
        low = torch.zeros(len(current), device=current.device)
        high = torch.ones_like(low)
        starts = current.clone()
        for _ in range(BLENDS):
            rows = rows[trial.able(rows)]
            if not len(rows):
                return
            middle = (low[rows] + high[rows]) / 2
            blended = torch.lerp(trial.images[rows], starts[rows], middle[:, None, None, None])
            wrong = trial.wrong(rows, blended[:, None])[:, 0]
            high[rows] = torch.where(wrong, middle, high[rows])
            low[rows] = torch.where(wrong, low[rows], middle)
            current[rows[wrong.cpu()]] = blended[wrong]

    def _proposals(
        self, trial: Trial, rows: Tensor, current: Tensor, walk: "_Walk", generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The image after the move on the sphere, and the one after the move towards the clean image, too."""
        clean = trial.images[rows]
        away = (current - clean).flatten(1)
        distance = away.norm(dim=1, keepdim=True).clamp_min(torch.finfo(away.dtype).tiny)
        direction = away / distance
        noise = torch.randn(away.shape, generator=generator, device=generator.device)
        noise = noise - (noise * direction).sum(1, keepdim=True) * direction
        spherical = walk.spherical[rows, None].to(away.device)
        moved = direction + spherical * noise / noise.norm(dim=1, keepdim=True)
        around = distance * moved / moved.norm(dim=1, keepdim=True)
        nearer = (1 - walk.source[rows, None].to(away.device)) * around
        return (clean + around.view_as(clean)).clamp(0, 1), (clean + nearer.view_as(clean)).clamp(0, 1)


def _misread(trial: Trial, rows: Tensor, images: Tensor) -> Tensor:
    """One paid answer about each of `(R, 3, H, W)` images, none where there are none: `(R,)` bool, on the CPU."""
    return trial.wrong(rows, images[:, None])[:, 0].cpu() if len(rows) else torch.zeros(0, dtype=torch.bool)


class _Walk:
    """The two step lengths of each image, and the latest answers that they adapt to.

    Attributes:
        steps: taken so far.
        doubtful: whether a wrong answer is asked for again before it is believed.
    """

    def __init__(self, attack: Boundary, images: int, *, doubtful: bool) -> None:
        self.steps = 0
        self.doubtful = doubtful
        self._attack = attack
        self.spherical = torch.full((images,), attack.spherical_step)
        self.source = torch.full((images,), attack.source_step)
        self._looks = torch.zeros(2, images)
        self._tries = torch.zeros(2, images)

    def converged(self, rows: Tensor) -> Tensor:
        """Whether the step towards the clean image has become too small, `(R,)` bool."""
        return self.source[rows] <= self._attack.converged

    def restart(self, rows: Tensor) -> None:
        """Both steps are at least those of the beginning again, and old answers are forgotten."""
        self.spherical[rows] = self.spherical[rows].clamp_min(self._attack.spherical_step)
        self.source[rows] = self.source[rows].clamp_min(self._attack.source_step)
        self._looks[:, rows] = 0
        self._tries[:, rows] = 0

    def note_spherical(self, rows: Tensor, wrong: Tensor) -> None:
        """Both steps follow the share of misread images on the sphere."""
        factor = self._factor(self._looks, rows, wrong, SPHERICAL_SHARES)
        self.spherical[rows] *= factor
        self.source[rows] *= factor

    def note_source(self, rows: Tensor, wrong: Tensor) -> None:
        """The step towards the clean image follows the share of steps that are kept."""
        self.source[rows] *= self._factor(self._tries, rows, wrong, SOURCE_SHARES)

    def _factor(self, counts: Tensor, rows: Tensor, wrong: Tensor, shares: tuple[float, float]) -> Tensor:
        """Counts; once a window is full, gives the factor that its share asks for, and begins a new window."""
        counts[0, rows] += 1
        counts[1, rows] += wrong.cpu().float()
        full = counts[0, rows] >= WINDOW
        share = counts[1, rows] / counts[0, rows]
        factor = torch.ones(len(rows))
        factor[full & (share < shares[0])] = 1 / self._attack.adaptation
        factor[full & (share > shares[1])] = self._attack.adaptation
        counts[:, rows[full]] = 0
        return factor
