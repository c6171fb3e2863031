"""HopSkipJump (Chen et al. 2020): the gradient at the boundary from labels around it, a step, a search back."""

from math import ceil, log2
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from evaluation.attacks.attack import LINF_EIGHT, Attack
from evaluation.attacks.footing import CHECKS, Footing
from evaluation.attacks.start import misread_starts
from evaluation.ball import Ball
from evaluation.trial import Trial

FIRST_DELTA = 0.1
HALVINGS = 20
"""Of the length of a step until it is misread; 10^-6 of the distance is no step."""
FEWEST = 10
"""Labels that a direction is worth being estimated from."""
NEAR = 2.0
"""Radii of the ball from which the next step may hit."""
STEPS = 6
"""Queries that most steps need."""
EIGHT_BITS = 255
ROUNDED_PROBE = 4.0
"""In levels a pixel, where the target rounds. With less than one most of what is asked rounds to the same image; the
search then ends up to half a level to one side of the boundary in every pixel, and the probe has to reach across."""
COARSE_PROBE = 1.0
"""The same where it computes in few digits: bfloat16 tells pixels apart that differ by half a level to a whole one."""
FINEST = 0.5
"""In levels: the change of a pixel that may round to none."""


class HopSkipJump(Attack):
    """The attack in either norm, for many images at once; each image has its own distance, step and budget.

    Nothing is taken for granted: an image that was misread a moment ago may be read rightly now, and the search goes
    on from where it is. Where the target is random, the search may end where one answer was wrong by luck and all
    around are right, and no direction is to be had there; so before each estimate the incumbent is asked about again
    and moved back out where it is read rightly. There the search ends at a share of the distance of `gamma` over the
    numbers of an image, since draws hide the rest, and the probe is as much longer as that is coarser: labels are asked
    on both sides of the boundary only if the probe reaches as far as the search may be off.

    An estimate takes no more queries than leave enough for what mostly comes after it: the step, the search, the last
    looks, and asking again about a hit where one is near. What is handed in of an image that came into the ball is as
    far away as the ball allows.

    The published distance of the probes is some 10^-4 of an 8-bit level a pixel. Where the target rounds, it is at
    least four levels, and neither the search nor a step goes below half of one; where it computes in few digits, one.

    Attributes:
        evaluations: labels that the first gradient is estimated from; the t-th takes sqrt(t) times as many.
        gamma: sets where the search stops and how far around the boundary labels are asked.
        delta_scale: a factor on the latter distance.
        probe: the least of that distance, in 8-bit levels a pixel (root mean square), instead of what the target sees
            of it at least; for targets whose noise or purification hides smaller changes.
        attempts: images that are tried as a start.
        refresh: iterations from one look at the incumbent to the next, where the target is random; 0 for never, as
            published.
    """

    ball: ClassVar[Ball] = LINF_EIGHT
    revision: ClassVar[int] = 5
    kind: Literal["hopskipjump"] = "hopskipjump"
    evaluations: PositiveInt = 100
    gamma: Annotated[float, Field(gt=0)] = 1.0
    delta_scale: Annotated[float, Field(gt=0)] = 1.0
    probe: NonNegativeFloat = 0.0
    attempts: PositiveInt = 100
    refresh: NonNegativeInt = 1

    def run(self, trial: Trial, generator: torch.Generator) -> Tensor:
        """Searches the boundary from the start on, then estimates, steps and searches in turn."""
        started, starts = misread_starts(trial, self.attempts, generator)
        rows = started
        current = starts.clone()
        reach = trial.ball.distance(starts, trial.images)
        footing = Footing(starts)
        refresh = 0 if trial.oracle.target.deterministic else self.refresh
        self.search(trial, rows, current)
        iteration = 1
        while len(rows := self._able(trial, rows, current, refresh)):
            if refresh and iteration % refresh == 0:
                footing.regain(trial, rows, current)
                rows = self._able(trial, rows, current, refresh)
            delta = self._delta(trial, current, reach, iteration)
            direction = torch.zeros_like(current)
            wanted = int(self.evaluations * iteration**0.5)
            afterwards = self._afterwards(trial, current, refresh)[rows]
            affordable = trial.remaining(rows).sub(afterwards).clamp_max(wanted)
            for points in sorted(set(affordable.tolist())):
                group = rows[affordable == points]
                direction[group] = self._direction(trial, group, current[group], delta[group], points, generator)
            distance = trial.ball.distance(current, trial.images)
            self._step(trial, rows, current, direction, distance / iteration**0.5)
            reach = trial.ball.distance(current, trial.images)
            self.search(trial, rows, current)
            iteration += 1
        if not refresh:
            return current
        return footing.end(trial, started, current)

    def _able(self, trial: Trial, rows: Tensor, current: Tensor, refresh: int) -> Tensor:
        """The rows that have queries for an estimate and for what comes after it."""
        return rows[trial.able(rows, FEWEST + self._afterwards(trial, current, refresh)[rows])]

    def _afterwards(self, trial: Trial, current: Tensor, refresh: int) -> Tensor:
        """Queries that are kept for what comes after an estimate, `(N,)` int64 on the CPU."""
        kept = STEPS + self.search_queries(trial) + (CHECKS if refresh else 0)
        near = (trial.ball.distance(current, trial.images) <= NEAR * trial.ball.epsilon).cpu()
        return kept + near * trial.check_queries * (refresh > 0)

    def search(self, trial: Trial, rows: Tensor, current: Tensor) -> None:
        """Moves images of `current` to the boundary, on the way to the clean image, by halving."""
        low = torch.zeros(len(current), device=current.device)
        high = self.farthest(trial, current)
        finest = self._finest(trial)
        tolerance = (high * finest).clamp_max(finest if trial.ball.norm == "linf" else 1)
        if levels := trial.oracle.target.levels:
            largest = (current - trial.images).abs().flatten(1).amax(1).clamp_min(torch.finfo(high.dtype).tiny)
            tolerance = tolerance.maximum(FINEST / levels * high / largest)
        far = current.clone()
        while len(rows := rows[trial.able(rows) & (high - low > tolerance)[rows].cpu()]):
            middle = (low[rows] + high[rows]) / 2
            if ((middle == low[rows]) | (middle == high[rows])).all():  # no float32 lies between them
                break
            between = self.nearer(trial, rows, far[rows], middle)
            wrong = trial.wrong(rows, between[:, None])[:, 0]
            high[rows] = torch.where(wrong, middle, high[rows])
            low[rows] = torch.where(wrong, low[rows], middle)
            current[rows[wrong.cpu()]] = between[wrong]

    def search_queries(self, trial: Trial) -> int:
        """The most that a search costs."""
        return max(1, ceil(-log2(self._finest(trial))))

    def farthest(self, trial: Trial, current: Tensor) -> Tensor:
        """The `amount` of `nearer` that leaves each image where it is: `(N,)`."""
        if trial.ball.norm == "linf":
            return trial.ball.distance(current, trial.images)
        return torch.ones(len(current), device=current.device)

    def nearer(self, trial: Trial, rows: Tensor, far: Tensor, amount: Tensor) -> Tensor:
        """Moves images towards the clean ones: to a share of the distance (l2), or to at most that distance."""
        clean, amount = trial.images[rows], amount[:, None, None, None]
        if trial.ball.norm == "linf":
            return torch.clamp(far, clean - amount, clean + amount)
        return torch.lerp(clean, far, amount)

    def _finest(self, trial: Trial) -> float:
        """Where the search stops, as a share of the distance."""
        if trial.oracle.target.deterministic or not self.refresh:
            return self._theta(trial)
        return self.gamma / trial.images[0].numel()

    def _theta(self, trial: Trial) -> float:
        size = trial.images[0].numel()
        return self.gamma / (size * size if trial.ball.norm == "linf" else size**1.5)

    def _delta(self, trial: Trial, current: Tensor, reach: Tensor, iteration: int) -> Tensor:
        """How far around the boundary labels are asked, `(N,)`, as the Euclidean length of the change."""
        size, levels = current[0].numel(), trial.oracle.target.levels
        factor = self._finest(trial) * (size if trial.ball.norm == "linf" else size**0.5)
        delta = torch.full_like(reach, FIRST_DELTA) if iteration == 1 else reach * factor
        least = ROUNDED_PROBE / levels if levels else COARSE_PROBE / EIGHT_BITS * trial.oracle.target.coarse
        return (delta * self.delta_scale).clamp_min((self.probe / EIGHT_BITS or least) * size**0.5)

    def _direction(
        self, trial: Trial, rows: Tensor, current: Tensor, delta: Tensor, points: int, generator: torch.Generator
    ) -> Tensor:
        """Where more images are misread, `(R, 3, H, W)`: a sign (l-infinity) or a unit vector (l2)."""
        shape = (len(rows), points, *current.shape[1:])
        if trial.ball.norm == "linf":
            noise = 2 * torch.rand(shape, generator=generator, device=generator.device) - 1
        else:
            noise = torch.randn(shape, generator=generator, device=generator.device)
        noise = noise / noise.flatten(2).norm(dim=2)[..., None, None, None]
        delta = delta.clamp_min(torch.finfo(delta.dtype).tiny)[:, None, None, None, None]
        around = (current[:, None] + delta * noise).clamp(0, 1)
        noise = (around - current[:, None]) / delta
        votes = 2.0 * trial.wrong(rows, around).float() - 1
        mean = votes.mean(1, keepdim=True)
        weights = torch.where(mean.abs() == 1, votes, votes - mean)
        estimate = torch.einsum("rs,rschw->rchw", weights, noise)
        if trial.ball.norm == "linf":
            return estimate.sign()
        length = estimate.flatten(1).norm(dim=1).clamp_min(torch.finfo(estimate.dtype).tiny)
        return estimate.div(length[:, None, None, None])

    def _step(self, trial: Trial, rows: Tensor, current: Tensor, direction: Tensor, length: Tensor) -> None:
        """Moves images of `current` along their direction by the largest halving of `length` that is misread."""
        length = length.clone()
        finest = FINEST / levels if (levels := trial.oracle.target.levels) else 0.0
        for _ in range(HALVINGS):
            changes = length[rows] * direction[rows].abs().flatten(1).amax(1)
            rows = rows[trial.able(rows) & (changes >= finest).cpu()]
            if not len(rows):
                return
            moved = (current[rows] + length[rows, None, None, None] * direction[rows]).clamp(0, 1)
            wrong = trial.wrong(rows, moved[:, None])[:, 0]
            current[rows[wrong.cpu()]] = moved[wrong]
            rows = rows[~wrong.cpu()]
            length[rows] /= 2
