"""The local implicit decoder of a purifier: each pixel's features, with their 3x3 neighborhood, to a color.

LIIF (Chen et al. 2021) asks an MLP for the color at a coordinate from the features around it. PuriDefense (appendix
D.1) drops the coordinates, the cell size and the local ensemble, because a purifier never changes the resolution: what
is left is one MLP evaluation a pixel. An MLP over unfolded 3x3 features is a 3x3 convolution followed by 1x1
convolutions, and that is how it runs here.
"""

from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

RGB = 3
ENSEMBLE_CORNERS = ((-1, -1), (-1, 0), (0, -1), (0, 0))


class DecoderConfig(BaseModel):
    """The dimensions of a decoder; stored with its weights.

    Attributes:
        hidden: channels of each hidden layer of the MLP.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=16)]


class LocalImplicitDecoder(nn.Module):
    """Maps `(N, features, H, W)` features to `(N, 3, H, W)` colors, one MLP evaluation a pixel."""

    def __init__(self, features: int, config: DecoderConfig) -> None:
        super().__init__()
        widths = (features, *config.hidden)
        layers: list[nn.Module] = []
        for depth, (before, after) in enumerate(pairwise(widths)):
            kernel = 3 if depth == 0 else 1
            layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], RGB, 1))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)  # type: ignore[no-any-return]

    def ensemble(self, features: Tensor) -> Tensor:
        """LIIF's local ensemble (Chen et al. 2021, section 3.2): four evaluations a pixel, averaged.

        A pixel's center lies at the same distance from the four latent codes around its lower corner once these are
        shifted by half a cell, so all four weigh the same. This is what DISCO pays and PuriDefense does not.
        """
        padded = functional.pad(features, [1, 0, 1, 0], mode="replicate")
        height, width = features.shape[2:]
        evaluations = [
            self(padded[:, :, 1 + down : 1 + down + height, 1 + right : 1 + right + width])
            for down, right in ENSEMBLE_CORNERS
        ]
        return sum(evaluations[1:], start=evaluations[0]) / len(evaluations)  # type: ignore[no-any-return]
