"""Bit reduction: fewer levels for each channel, as feature squeezing has it (Xu et al. 2018, section 3.1)."""

from typing import ClassVar

import torch
from torch import Tensor

from models.defenses.defense import Defense
from models.randomness import RandomBytes

BITS = 5
"""What the authors settle on for CIFAR-10."""


class BitReduction(Defense):
    """Rounds each channel to the nearest of 32 levels."""

    name: ClassVar[str] = "bit-reduction"

    def draw(self, random_bytes: RandomBytes) -> Tensor:
        """Draws nothing: `(N, 0)`."""
        return random_bytes(0)

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: ARG002
        """The images on the coarser levels."""
        steps = 2**BITS - 1
        return torch.round(images * steps).div(steps)
