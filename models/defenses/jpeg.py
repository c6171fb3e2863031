"""JPEG compression as a defense (Guo et al. 2018): what the codec throws away takes some of the perturbation along."""

import io
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.defenses.defense import Defense
from models.preprocessing import Pixels
from models.randomness import RandomBytes

QUALITY = 75
LEVELS = 255


class JPEG(Defense):
    """Encodes and decodes each image at quality 75, on the CPU whatever the device is."""

    name: ClassVar[str] = "jpeg"

    def draw(self, random_bytes: RandomBytes) -> Tensor:
        """Draws nothing: `(N, 0)`."""
        return random_bytes(0)

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: ARG002
        """The images as they come out of the codec, on the 8-bit levels."""
        pixels = (images * LEVELS).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        coded = np.stack([_coded(one) for one in pixels])
        return torch.from_numpy(coded).permute(0, 3, 1, 2).to(images.device, images.dtype) / LEVELS


def _coded(pixels: Pixels) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY)
    return np.array(Image.open(buffer))
