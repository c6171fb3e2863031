"""APGD (Croce and Hein 2020) with expectation over transformation: what an attacker who owns the pool can do.

It is no attack on a gateway but the floor under all of them: it has the gradient of the defense itself, averaged over
20 draws in each step.
"""

from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from evaluation.attacks.attack import LINF_EIGHT, Attack
from evaluation.attacks.send import send
from evaluation.ball import Ball
from evaluation.criteria import margin
from evaluation.errors import EvaluationError
from evaluation.target import LocalTarget
from evaluation.trial import Trial

MOMENTUM = 0.75
KEPT_SHARE = 0.75
FIRST_CHECKPOINT, SHRINK, SHORTEST = 22, 3, 6
"""In percent of the steps."""


class APGD(Attack):
    """Signed ascent with momentum in the l-infinity ball; the step halves where an image makes no progress.

    Attributes:
        steps: of the ascent.
        draws: of the defense, averaged into each gradient.
    """

    ball: ClassVar[Ball] = LINF_EIGHT
    revision: ClassVar[int] = 2
    kind: Literal["apgd"] = "apgd"
    steps: PositiveInt = 50
    draws: PositiveInt = 20

    def run(self, trial: Trial, generator: torch.Generator) -> Tensor:
        """Asks once about each clean image, and about what came of it until it is misread; gradients are no queries."""
        target = trial.oracle.target
        if not isinstance(target, LocalTarget):
            raise EvaluationError("APGD needs the weights; it cannot attack a gateway")
        rows = trial.active()
        trial.wrong(rows, trial.images[rows, None])
        adversarial = trial.images.clone()
        rows = trial.active()
        if len(rows):
            draws = 1 if target.deterministic else self.draws
            climb = Climb(target, trial.images[rows], trial.labels[rows], trial.ball, draws)
            adversarial[rows] = climb.run(self.steps, generator)
            send(trial, rows, adversarial, generator)
        return adversarial


class Climb:
    """The ascent of the negative margin from a random point of the ball.

    Args:
        target: whose gradient is followed.
        images: `(N, 3, H, W)` float32 in [0, 1].
        labels: `(N,)` int64.
        ball: l-infinity.
        draws: averaged into each gradient.
    """

    def __init__(self, target: LocalTarget, images: Tensor, labels: Tensor, ball: Ball, draws: int) -> None:
        if ball.norm != "linf":
            raise EvaluationError("APGD attacks in the l-infinity ball")
        self.target = target
        self.images = images
        self.labels = labels
        self.ball = ball
        self.draws = draws

    def run(self, steps: int, generator: torch.Generator) -> Tensor:
        """The image of the largest loss on each way, `(N, 3, H, W)`."""
        noise = 2 * torch.rand(self.images.shape, generator=generator, device=generator.device) - 1
        current = before = self.ball.project(self.images + self.ball.epsilon * noise, self.images)
        loss, gradient = self._measure(current)
        best, best_loss, best_gradient = current.clone(), loss.clone(), gradient.clone()
        length = torch.full_like(loss, 2 * self.ball.epsilon)
        rises, loss_then, length_then = torch.zeros_like(loss), best_loss.clone(), length.clone()
        checks, since = checkpoints(steps), 0
        for step in range(steps):
            momentum = current - before if step else torch.zeros_like(current)
            ascended = self.ball.project(current + length[:, None, None, None] * gradient.sign(), self.images)
            moved = current + MOMENTUM * (ascended - current) + (1 - MOMENTUM) * momentum
            before, current = current, self.ball.project(moved if step else ascended, self.images)
            last, (loss, gradient) = loss, self._measure(current)
            rises += loss > last
            better = loss > best_loss
            best[better], best_loss[better], best_gradient[better] = current[better], loss[better], gradient[better]
            since += 1
            if step + 1 in checks:
                stuck = (rises < KEPT_SHARE * since) | ((length == length_then) & (best_loss == loss_then))
                length_then, loss_then = length.clone(), best_loss.clone()
                length[stuck] /= 2
                current[stuck], gradient[stuck] = best[stuck], best_gradient[stuck]
                rises.zero_()
                since = 0
        return best

    def _measure(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The negative margin, averaged over the draws, `(N,)`, and its gradient."""
        total, gradient = torch.zeros(len(images), device=images.device), torch.zeros_like(images)
        for _ in range(self.draws):
            leaf = images.detach().clone().requires_grad_()
            loss = -margin(self.target.differentiable_scores(leaf)[:, None], self.labels)[:, 0]
            (one,) = torch.autograd.grad(loss.sum(), leaf)
            total += loss.detach()
            gradient += one
        return total / self.draws, gradient / self.draws


def checkpoints(steps: int) -> frozenset[int]:
    """After which steps an image that makes no progress takes smaller ones (section 3.1 of the paper)."""
    percents = [0, FIRST_CHECKPOINT]
    while percents[-1] < 100:  # noqa: PLR2004
        percents.append(percents[-1] + max(percents[-1] - percents[-2] - SHRINK, SHORTEST))
    return frozenset(-(-percent * steps // 100) for percent in percents[1:-1])
