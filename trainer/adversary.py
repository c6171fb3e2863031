"""White-box attacks that make the training images of purifiers: FGSM, BIM and PGD in the l-infinity ball.

FGSM is one full step along the sign of the gradient (Goodfellow et al. 2015). BIM repeats smaller ones from the clean
image (Kurakin et al. 2017); PGD does so from a random point of the ball (Madry et al. 2018). Strength, steps and step
size are drawn from ranges, for each image or batch, so that a purifier does not learn one perturbation by heart and the
BIM and PGD purifiers do not become twins.
"""

from collections.abc import Callable
from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional

Network = Callable[[Tensor], Tensor]


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

    def perturb(self, network: Network, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Adversarial images near `images`, on the 8-bit grid that a client's image lies on.

        Args:
            network: the surrogate, `(N, C, H, W)` floats in [0, 1] to logits, in evaluation mode.
            images: `(N, C, H, W)` float32 in [0, 1].
            labels: `(N,)` int64.
            generator: a CPU generator; the only randomness.
        """
        count = len(images)
        epsilon = _uniform(self.epsilon, count, generator).to(images.device) / 255
        step = epsilon * _uniform(self.step_size, count, generator).to(images.device)
        steps = int(torch.randint(self.steps[0], self.steps[1] + 1, (), generator=generator))
        start = images
        if self.kind == "pgd":
            noise = torch.rand(images.shape, generator=generator).to(images.device)
            start = torch.clamp(images + epsilon * (2 * noise - 1), 0, 1)
        adversarial = ascend(network, images, labels, start, epsilon=epsilon, step=step, steps=steps)
        return onto_levels(adversarial, images)


def onto_levels(adversarial: Tensor, images: Tensor) -> Tensor:
    """Moves each pixel to an 8-bit level, towards that of the clean image, so that none leaves its ball."""
    clean = torch.round(images * LEVELS)
    return (clean + torch.trunc(adversarial * LEVELS - clean + TOLERANCE * (adversarial - images).sign())) / LEVELS


def ascend(
    network: Network, images: Tensor, labels: Tensor, start: Tensor, *, epsilon: Tensor, step: Tensor, steps: int
) -> Tensor:
    """Climbs the cross-entropy by `steps` signed gradient steps and stays within `epsilon` of `images` and in [0, 1].

    Args:
        network: `(N, C, H, W)` floats in [0, 1] to logits.
        images: `(N, C, H, W)` float32, the center of each ball.
        labels: `(N,)` int64.
        start: where each image starts, inside its ball.
        epsilon: `(N, 1, 1, 1)`, radius of each ball.
        step: `(N, 1, 1, 1)`, length of one step.
        steps: how many.
    """
    current = start
    for _ in range(steps):
        current = current.detach().requires_grad_()
        loss = functional.cross_entropy(network(current).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, current)
        moved = current.detach() + step * gradient.sign()
        current = torch.clamp(torch.clamp(moved, images - epsilon, images + epsilon), 0, 1)
    return current.detach()


def _uniform(bounds: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand((count, 1, 1, 1), generator=generator)
