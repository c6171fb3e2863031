"""A purifier: an encoder and a local implicit decoder; an image in, the same image without its perturbation out."""

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from models.decoder import DecoderConfig, LocalImplicitDecoder
from models.encoders import EncoderConfig

PIXEL_CENTER = 0.5
PIXEL_SPREAD = 0.25
"""Natural images have about this mean and deviation; without them the brightness drowns the perturbation at first."""


class PurifierConfig(BaseModel):
    """The dimensions of a purifier; stored with its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: EncoderConfig
    decoder: DecoderConfig


class Purifier(nn.Module):
    """Purifies whole images or windows of them.

    Takes `(N, 3, H, W)` floats in [0, 1]; gives the same shape in [0, 1]. The decoder predicts the correction that is
    added to each pixel. A new purifier's correction is zero: it starts as the identity and has to learn the noise
    alone. Its layers may be cast to bfloat16 (`to`): float32 images then stay float32, and only the correction is
    computed in fewer digits.
    """

    def __init__(self, config: PurifierConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build()
        self.decoder = LocalImplicitDecoder(config.encoder.features, config.decoder)
        correction = self.decoder.layers[-1]
        assert isinstance(correction, nn.Conv2d)
        nn.init.zeros_(correction.weight)
        assert correction.bias is not None
        nn.init.zeros_(correction.bias)

    def forward(self, images: Tensor) -> Tensor:
        return _corrected(images, self.decoder(self._features(images)))

    def with_local_ensemble(self, images: Tensor) -> Tensor:
        """Purifies with four decoder evaluations a pixel instead of one, as the DISCO baseline does."""
        return _corrected(images, self.decoder.ensemble(self._features(images)))

    def _features(self, images: Tensor) -> Tensor:
        centered = (images - PIXEL_CENTER) / PIXEL_SPREAD
        return self.encoder(centered.to(self.encoder.precision))  # type: ignore[no-any-return]


def _corrected(images: Tensor, corrections: Tensor) -> Tensor:
    """Clamped to [0, 1]; NaN where a correction is infinite, which the clamp alone would pass off as black or white."""
    return torch.clamp(images + corrections, 0, 1).add(corrections, alpha=0)
