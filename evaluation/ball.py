"""How far an attack may go: the images within a distance of a clean one, and within [0, 1]."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Norm = Literal["linf", "l2"]

TOLERANCE = 1e-5
"""What float32 arithmetic may add to a distance; a level of an 8-bit image is 400 times as much."""


@dataclass(frozen=True)
class Ball:
    """The allowed perturbations.

    Attributes:
        norm: `linf` (the largest change of a pixel's channel) or `l2` (the Euclidean length of the change).
        epsilon: the largest distance, on pixels in [0, 1].
    """

    norm: Norm
    epsilon: float

    def distance(self, images: Tensor, centers: Tensor) -> Tensor:
        """How far each of `(..., C, H, W)` images is from its center: `(...)`."""
        change = (images - centers).flatten(-3)
        return change.abs().amax(-1) if self.norm == "linf" else change.norm(dim=-1)

    def contains(self, images: Tensor, centers: Tensor) -> Tensor:
        """Whether each of `(..., C, H, W)` images is allowed: `(...)` bool."""
        near = self.distance(images, centers) <= self.epsilon + TOLERANCE
        low, high = images.flatten(-3).aminmax(dim=-1)
        return near & (low >= 0) & (high <= 1)

    def stretch(self, images: Tensor, centers: Tensor) -> Tensor:
        """Moves each of `(..., C, H, W)` images within the ball away from its center until it is `epsilon` away.

        Cutting to [0, 1] may leave it nearer. Others, and the centers themselves, stay where they are.
        """
        distance = self.distance(images, centers)
        inside = (distance > 0) & (distance < self.epsilon)
        factor = torch.where(inside, self.epsilon / distance.clamp_min(torch.finfo(distance.dtype).tiny), 1)
        moved = (centers + factor[..., None, None, None] * (images - centers)).clamp(0, 1)
        return torch.where(inside[..., None, None, None], moved, images)

    def project(self, images: Tensor, centers: Tensor) -> Tensor:
        """The nearest allowed image to each of `(..., C, H, W)`, given centers in [0, 1].

        Cutting to [0, 1] comes last; it only moves an image towards its center.
        """
        change = images - centers
        if self.norm == "linf":
            change = change.clamp(-self.epsilon, self.epsilon)
        else:
            length = change.flatten(-3).norm(dim=-1).clamp_min(torch.finfo(change.dtype).tiny)
            change = change * (self.epsilon / length).clamp_max(1)[..., None, None, None]
        return (centers + change).clamp(0, 1)
