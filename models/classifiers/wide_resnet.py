"""Wide residual networks for small images (Zagoruyko and Komodakis 2016); `WRN-28-10` is depth 28, widening 10."""

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator
from torch import Tensor, nn
from torch.nn import functional

BASE_CHANNELS = 16
GROUPS = 3
FIXED_LAYERS = 4
LAYERS_PER_BLOCK = 2 * GROUPS


class WideResNetConfig(BaseModel):
    """The dimensions of a wide ResNet; stored with its weights.

    Attributes:
        depth: convolutions from image to logits; 6n + 4.
        widening: factor on the 16, 32 and 64 channels of the three groups.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["wide-resnet"] = "wide-resnet"
    depth: Annotated[int, Field(ge=1, le=1000)] = 28
    widening: PositiveInt = 10

    @field_validator("depth")
    @classmethod
    def _six_n_plus_four(cls, depth: int) -> int:
        if depth <= FIXED_LAYERS or (depth - FIXED_LAYERS) % LAYERS_PER_BLOCK:
            raise ValueError(f"a wide ResNet has a depth of 6n + 4, such as 16, 28 or 40, not {depth}")
        return depth

    def build(self, classes: int) -> "WideResNet":
        """An untrained network with one logit for each of `classes`."""
        return WideResNet(self, classes)


class PreActivationBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions, around a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        activated = functional.relu(self.bn1(features))
        kept = features if self.shortcut is None else self.shortcut(activated)
        hidden = functional.relu(self.bn2(self.conv1(activated)))
        return kept + self.conv2(hidden)  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """A classifier of normalized images.

    Takes `(N, 3, H, W)` floats, normalized; gives `(N, classes)` logits.
    """

    def __init__(self, config: WideResNetConfig, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, BASE_CHANNELS, 3, padding=1, bias=False)
        blocks = []
        in_channels = BASE_CHANNELS
        for group in range(GROUPS):
            out_channels = BASE_CHANNELS * config.widening * 2**group
            for index in range((config.depth - FIXED_LAYERS) // LAYERS_PER_BLOCK):
                stride = 2 if group > 0 and index == 0 else 1
                blocks.append(PreActivationBlock(in_channels, out_channels, stride))
                in_channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(in_channels)
        self.head = nn.Linear(in_channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(self.norm(self.blocks(self.stem(images))))
        return self.head(torch.mean(features, dim=(2, 3)))  # type: ignore[no-any-return]
