"""Random noise on every query (Qin et al. 2021): the paper's `IR`, the plainest randomized defense."""

from typing import ClassVar

import torch
from torch import Tensor

from models.defenses.defense import Defense
from models.randomness import RandomBytes

SIGMA = 0.041
WORD_BYTES = 4
SIGN_BIT_MASK = 2**31 - 1


class RandomNoise(Defense):
    """Adds Gaussian noise of deviation 0.041 to each channel of each pixel.

    Args:
        height: of the images, in pixels.
        width: of the images, in pixels.
    """

    name: ClassVar[str] = "random-noise"

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.shape = (3, height, width)

    def draw(self, random_bytes: RandomBytes) -> Tensor:
        """Draws `(N, 3 * height * width)` float32, standard normal: the inverse of its distribution on 31-bit words."""
        channels, height, width = self.shape
        words = random_bytes(WORD_BYTES * channels * height * width).contiguous().view(torch.int32)
        uniform = ((words & SIGN_BIT_MASK).double() + 0.5) / (SIGN_BIT_MASK + 1)
        normal: Tensor = torch.special.ndtri(uniform)
        return normal.float()

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        """The noisy images, cut to [0, 1]."""
        noise = draws.to(images.device, images.dtype).view(-1, *self.shape)
        return torch.clamp(images + SIGMA * noise, 0, 1)
