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
ENSEMBLE_CODES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Of a pixel: its own, that to its right, the one below, and the one below that."""
OTHERS_WEIGHT = 1e-9 / 4
"""What LIIF adds to each area, 1e-9, over the four cells between a pixel and the code below to its right."""


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
        """LIIF's local ensemble (Chen et al. 2021, section 3.2): four evaluations a pixel, weighed by areas.

        A code weighs as much as the area between the pixel and the code opposite. DISCO asks at the centers of pixels,
        where the pixel's own code lies: all areas but the one opposite to it are nothing, so that three of the four
        evaluations have next to no weight. They are what DISCO pays and PuriDefense does not. (In the last row and
        column the published code, whose codes end there, averages two of them; here a pixel's own counts there, too.)
        """
        padded = functional.pad(features, [0, 1, 0, 1], mode="replicate")
        height, width = features.shape[2:]
        own, *others = (
            self(padded[:, :, down : down + height, right : right + width]) for down, right in ENSEMBLE_CODES
        )
        return own + OTHERS_WEIGHT * sum(others)  # type: ignore[no-any-return]
