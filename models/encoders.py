"""The encoders of purifiers: EDSR (Lim et al. 2017) and RCAN (Zhang et al. 2018), image in, features out.

Both come from super-resolution and lose their upsampling tail here. With `unshuffle` above 1 the convolutions run on
an image whose pixels were folded into channels (space to depth): for a 64-feature encoder that quarters the cost of
every layer, which is what lets wide and narrow purifiers cost about the same.
"""

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

RGB = 3
Count = Annotated[int, Field(ge=1, le=256)]
"""Of layers; bounded, since each is an object even before any weights are read."""


class EDSRConfig(BaseModel):
    """The dimensions of an EDSR encoder; stored with its weights.

    Attributes:
        features: channels of every layer and of the output.
        blocks: residual blocks.
        unshuffle: side of the square of pixels folded into channels before the first convolution; 1 folds none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["edsr"] = "edsr"
    features: PositiveInt
    blocks: Count
    unshuffle: PositiveInt = 1

    def build(self) -> "Encoder":
        """An untrained encoder of these dimensions."""
        body = [ResidualBlock(self.features) for _ in range(self.blocks)]
        return Encoder(self.features, self.unshuffle, nn.Sequential(*body))


class RCANConfig(BaseModel):
    """The dimensions of an RCAN encoder; stored with its weights.

    Attributes:
        features: channels of every layer and of the output.
        groups: residual groups, each with a convolution and a shortcut of its own.
        blocks: residual channel-attention blocks in each group.
        reduction: how many times narrower the bottleneck of the channel attention is.
        unshuffle: side of the square of pixels folded into channels before the first convolution; 1 folds none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["rcan"] = "rcan"
    features: PositiveInt
    groups: Count
    blocks: Count
    reduction: PositiveInt = 16
    unshuffle: PositiveInt = 1

    def build(self) -> "Encoder":
        """An untrained encoder of these dimensions."""
        body = [ResidualGroup(self.features, self.blocks, self.reduction) for _ in range(self.groups)]
        return Encoder(self.features, self.unshuffle, nn.Sequential(*body))


EncoderConfig = Annotated[EDSRConfig | RCANConfig, Field(discriminator="kind")]


def convolution(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size of its input."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class ResidualBlock(nn.Module):
    """EDSR's block: two convolutions without batch normalization around a shortcut (Lim et al. 2017, figure 2c)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(features, features), nn.ReLU(inplace=True), convolution(features, features)
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.body(features)  # type: ignore[no-any-return]


class ChannelAttention(nn.Module):
    """Scales each channel by a gate computed from the channel means (Zhang et al. 2018, section 3.3)."""

    def __init__(self, features: int, reduction: int) -> None:
        super().__init__()
        narrow = max(1, features // reduction)
        self.gate = nn.Sequential(
            nn.Conv2d(features, narrow, 1), nn.ReLU(inplace=True), nn.Conv2d(narrow, features, 1), nn.Sigmoid()
        )

    def forward(self, features: Tensor) -> Tensor:
        return features * self.gate(torch.mean(features, dim=(2, 3), keepdim=True))  # type: ignore[no-any-return]


class AttentionBlock(nn.Module):
    """RCAN's residual channel-attention block (Zhang et al. 2018, figure 4)."""

    def __init__(self, features: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(features, features),
            nn.ReLU(inplace=True),
            convolution(features, features),
            ChannelAttention(features, reduction),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.body(features)  # type: ignore[no-any-return]


class ResidualGroup(nn.Module):
    """RCAN's residual group: blocks, a convolution, and a shortcut around them (Zhang et al. 2018, section 3.2)."""

    def __init__(self, features: int, blocks: int, reduction: int) -> None:
        super().__init__()
        body = [AttentionBlock(features, reduction) for _ in range(blocks)]
        self.body = nn.Sequential(*body, convolution(features, features))

    def forward(self, features: Tensor) -> Tensor:
        return features + self.body(features)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Head, body and long shortcut: the frame that EDSR and RCAN share.

    Takes `(N, 3, H, W)` floats in [0, 1]; gives `(N, features, H, W)` floats. Any H and W will do: where `unshuffle`
    does not divide them, the image is padded by repeating its last row and column, and the features are cut again.
    """

    def __init__(self, features: int, unshuffle: int, body: nn.Module) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        self.fold: nn.Module = nn.Identity()
        self.unfold: nn.Module = nn.Identity()
        if unshuffle > 1:
            self.fold = nn.PixelUnshuffle(unshuffle)
            self.unfold = nn.Sequential(nn.Conv2d(features, features * unshuffle**2, 1), nn.PixelShuffle(unshuffle))
        self.head = convolution(RGB * unshuffle**2, features)
        self.body = nn.Sequential(body, convolution(features, features))

    @property
    def precision(self) -> torch.dtype:
        """The number format of the weights, which images must have."""
        return self.head.weight.dtype

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        bottom, right = -height % self.unshuffle, -width % self.unshuffle
        if bottom or right:
            images = functional.pad(images, [0, right, 0, bottom], mode="replicate")
        shallow = self.head(self.fold(images))
        features = self.unfold(shallow + self.body(shallow))
        return features[:, :, :height, :width]  # type: ignore[no-any-return]
