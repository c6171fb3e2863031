"""Spatial smoothing: a median filter, as feature squeezing has it (Xu et al. 2018, section 3.2)."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from models.defenses.defense import Defense
from models.randomness import RandomBytes

SIDE = 3


class SpatialSmoothing(Defense):
    """The median of the 3x3 neighborhood of each channel of each pixel; borders are repeated."""

    name: ClassVar[str] = "spatial-smoothing"

    def draw(self, random_bytes: RandomBytes) -> Tensor:
        """Draws nothing: `(N, 0)`."""
        return random_bytes(0)

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: ARG002
        """The smoothed images."""
        height, width = images.shape[2:]
        padded = functional.pad(images, [SIDE // 2] * 4, mode="replicate")
        neighbors = [
            padded[:, :, down : down + height, right : right + width] for down in range(SIDE) for right in range(SIDE)
        ]
        return torch.stack(neighbors).median(dim=0).values
