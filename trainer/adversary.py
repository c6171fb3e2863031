"""White-box attacks that make the training images of purifiers: FGSM, BIM and PGD in the l-infinity ball.

FGSM is one full step along the sign of the gradient (Goodfellow et al. 2015). BIM repeats smaller ones from the clean
image (Kurakin et al. 2017); PGD does so from a random point of the ball (Madry et al. 2018). Strength, steps and step
size are drawn from ranges, for each image or batch, so that a purifier does not learn one perturbation by heart and the
BIM and PGD purifiers do not become twins.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional

from models.device import send

Network = Callable[[Tensor], Tensor]
Objective = Callable[[Tensor], Tensor]

Strength = Annotated[float, Field(gt=0, le=255)]
LEVELS = 255
TOLERANCE = 1e-3
"""In levels: what float arithmetic may lack of a whole one."""


class Attack(BaseModel):
    """One attack and the ranges its settings are drawn from; both ends belong to a range.

    Attributes:
        kind: `fgsm`, `bim` (from the clean image) or `pgd` (from a random point of the ball).
        epsilon: radius of the ball in units of 1/255, drawn for each image.
        steps: gradient steps, drawn for each batch; 1 for FGSM.
        step_size: of one step as a share of epsilon, drawn for each image; 1 for FGSM.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["fgsm", "bim", "pgd"]
    epsilon: tuple[Strength, Strength]
    steps: tuple[PositiveInt, PositiveInt] = (1, 1)
    step_size: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (1.0, 1.0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("epsilon", "steps", "step_size"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: {low} is above {high}; a range is written low first")
        if self.kind == "fgsm" and (self.steps != (1, 1) or self.step_size != (1.0, 1.0)):
            raise ValueError("fgsm takes one full step: leave out steps and step_size")
        return self

    def draw(self, shape: torch.Size, generator: torch.Generator) -> "AttackDraw":
        """Draws strength, steps, step size and start for images of `shape`, `(N, C, H, W)`.

        Args:
            shape: of the batch.
            generator: a CPU generator; the only randomness.
        """
        epsilon = uniform(self.epsilon, shape[0], generator) / LEVELS
        step = epsilon * uniform(self.step_size, shape[0], generator)
        steps = int(torch.randint(self.steps[0], self.steps[1] + 1, (), generator=generator))
        start = torch.zeros(shape[0], 1, 1, 1)
        if self.kind == "pgd":
            start = epsilon * (2 * torch.rand(shape, generator=generator) - 1)
        return AttackDraw(epsilon, step, start, steps)


@dataclass(frozen=True)
class AttackDraw:
    """What was drawn for one attack on one batch.

    Attributes:
        epsilon: `(N, 1, 1, 1)`, radius of each ball, in [0, 1].
        step: `(N, 1, 1, 1)`, length of one step.
        start: where each image starts, as an offset of the shape of the images or of one that broadcasts to it.
        steps: gradient steps.
    """

    epsilon: Tensor
    step: Tensor
    start: Tensor
    steps: int

    def part(self, chosen: slice) -> "AttackDraw":
        """The draw for some of the images."""
        return AttackDraw(self.epsilon[chosen], self.step[chosen], self.start[chosen], self.steps)

    def perturb(self, network: Network, images: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images near `images`, on the 8-bit grid that a client's image lies on.

        Args:
            network: the surrogate, `(N, C, H, W)` floats in [0, 1] to logits, in evaluation mode.
            images: `(N, C, H, W)` float32 in [0, 1].
            labels: `(N,)` int64.
        """

        def loss(logits: Tensor) -> Tensor:
            return functional.cross_entropy(logits, labels, reduction="sum")

        return onto_levels(self.climb(network, images, loss), images)

    def climb(self, network: Network, images: Tensor, loss: Objective) -> Tensor:
        """Images of the balls around `images` that make `loss` of the logits large; not rounded to levels."""
        epsilon, step, start = (send(one, images.device) for one in (self.epsilon, self.step, self.start))
        begin = torch.clamp(images + start, 0, 1)
        return ascend(network, images, loss, begin, epsilon=epsilon, step=step, steps=self.steps)


def onto_levels(adversarial: Tensor, images: Tensor) -> Tensor:
    """Moves each pixel to an 8-bit level, towards that of the clean image, so that none leaves its ball."""
    clean = torch.round(images * LEVELS)
    return (clean + torch.trunc(adversarial * LEVELS - clean + TOLERANCE * (adversarial - images).sign())) / LEVELS


def ascend(
    network: Network, images: Tensor, loss: Objective, start: Tensor, *, epsilon: Tensor, step: Tensor, steps: int
) -> Tensor:
    """Climbs `loss` by `steps` signed gradient steps and stays within `epsilon` of `images` and in [0, 1].

    Args:
        network: `(N, C, H, W)` floats in [0, 1] to logits.
        images: `(N, C, H, W)` float32, the center of each ball.
        loss: `(N, classes)` float32 logits to a sum over the images.
        start: where each image starts, inside its ball.
        epsilon: `(N, 1, 1, 1)`, radius of each ball.
        step: `(N, 1, 1, 1)`, length of one step.
        steps: how many.
    """
    current = start
    for _ in range(steps):
        current = current.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(network(current).float()), current)
        moved = current.detach() + step * gradient.sign()
        current = torch.clamp(torch.clamp(moved, images - epsilon, images + epsilon), 0, 1)
    return current.detach()


def uniform(bounds: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    """`(count, 1, 1, 1)` float32 on the CPU, one for each image, within the bounds."""
    low, high = bounds
    return low + (high - low) * torch.rand((count, 1, 1, 1), generator=generator)
