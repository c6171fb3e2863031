"""Residual networks for small images: ResNet (He et al. 2015) with the CIFAR stem.

The stem is one 3x3 convolution without pooling, so that a 32x32 image keeps its resolution in the first stage.
`ResNetConfig(width=64, blocks=(2, 2, 2, 2))` is ResNet-18.
"""

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

STAGES = 4
Count = Annotated[int, Field(ge=1, le=256)]


class ResNetConfig(BaseModel):
    """The dimensions of a ResNet; stored with its weights.

    Attributes:
        width: channels of the first stage; every later stage doubles them.
        blocks: basic blocks in each of the four stages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["resnet"] = "resnet"
    width: PositiveInt = 64
    blocks: tuple[Count, Count, Count, Count] = (2, 2, 2, 2)

    def build(self, classes: int) -> "ResNet":
        """An untrained network with one logit for each of `classes`."""
        return ResNet(self, classes)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2015, figure 2)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, features: Tensor) -> Tensor:
        hidden = functional.relu(self.bn1(self.conv1(features)))
        return functional.relu(self.bn2(self.conv2(hidden)) + self.shortcut(features))


class ResNet(nn.Module):
    """A classifier of normalized images.

    Takes `(N, 3, H, W)` floats, normalized; gives `(N, classes)` logits.
    """

    def __init__(self, config: ResNetConfig, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, config.width, 3, padding=1, bias=False), nn.BatchNorm2d(config.width), nn.ReLU()
        )
        stages = []
        in_channels = config.width
        for stage in range(STAGES):
            out_channels = config.width * 2**stage
            strides = [1 if stage == 0 else 2] + [1] * (config.blocks[stage] - 1)
            for stride in strides:
                stages.append(BasicBlock(in_channels, out_channels, stride))
                in_channels = out_channels
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(in_channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stages(self.stem(images))
        return self.head(torch.mean(features, dim=(2, 3)))  # type: ignore[no-any-return]
