"""3x3 convolutions with fewer multiplications, for CPUs: Winograd's minimal filtering.

F(4x4, 3x3) makes 4 x 4 outputs of a tile of 6 x 6 features by 36 products instead of 144, F(2x2, 3x3) makes 2 x 2 of
4 x 4 by 16 instead of 36 (Lavin and Gray 2016, "Fast algorithms for convolutional neural networks", section 4). The
products of all channels and tiles are products of matrices. What it costs are three passes over the features, so it
pays where there are many channels.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

FEWEST_CHANNELS = 128
"""With fewer the passes over the features cost what the products save (docs/decisions, 29)."""
FEWEST_TILES = 8
"""With fewer of them, in all images of a batch, reading the transformed weights takes longer than the products."""
SMALL = 4
"""Side of a map that F(4x4, 3x3) takes for a single tile: F(2x2, 3x3) has less than half of its weights to read."""
MOST_BORDER = 2
"""Tiles cover whole steps: of 5 x 5 outputs those of four compute 8 x 8, which saves nothing any more."""
CHANNELS_A_TILE = 2
"""Images go through together until there are half as many tiles as output channels: with fewer the weights are read too
often, with more the tiles leave the cache."""

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Filtering:
    """F(m x m, 3 x 3), by the transforms of one dimension.

    Attributes:
        step: m.
        inputs: `(m + 2, m + 2)`, of features.
        weights: `(m + 2, 3)`.
        outputs: `(m, m + 2)`, of products.
    """

    step: int
    inputs: Rows
    weights: Rows
    outputs: Rows

    @cached_property
    def into_points(self) -> Tensor:
        """`((m + 2)^2, (m + 2)^2)` float32: from the features of a tile to the points where products are taken."""
        return _both_dimensions(self.inputs)

    @cached_property
    def from_points(self) -> Tensor:
        """`(m^2, (m + 2)^2)` float32: from these products to outputs."""
        return _both_dimensions(self.outputs)

    @property
    def tile(self) -> int:
        """The side of a tile of features."""
        return self.step + 2

    def transform(self, weights: Tensor) -> Tensor:
        """`(K, C, 3, 3)` weights at the points, `((m + 2)^2, C, K)`; computed in float64."""
        matrix = torch.tensor(self.weights, dtype=torch.float64)
        points = torch.einsum("ia,kcab,jb->ijck", matrix, weights.detach().double(), matrix)
        return points.flatten(0, 1).to(weights.dtype).contiguous()


def _both_dimensions(matrix: Rows) -> Tensor:
    one = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one).float()


F2 = Filtering(
    2,
    inputs=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    weights=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    outputs=((1, 1, 1, 0), (0, 1, -1, -1)),
)
F4 = Filtering(
    4,
    inputs=(
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    weights=(
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    outputs=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
)


class WinogradConvolution(nn.Conv2d):
    """Computes what a `Conv2d` computes, but for rounding: `(N, C, H, W)` float32 to `(N, K, H, W)`, on a CPU.

    Where it saves nothing, and for features whose gradient is asked for, it is the plain convolution. The first batch
    transforms the weights, too.

    Args:
        convolution: one that `is_suited`; its weights are shared, and must not change any more.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(convolution.in_channels, convolution.out_channels, 3, padding=1, device="meta")
        self.weight, self.bias = convolution.weight, convolution.bias
        self._transformed: dict[Filtering, Tensor] = {}

    def forward(self, features: Tensor) -> Tensor:
        images, _, height, width = features.shape
        by = F2 if max(height, width) <= SMALL else F4
        rows, columns = math.ceil(height / by.step), math.ceil(width / by.step)
        too_few = images * rows * columns < FEWEST_TILES or rows * columns * by.step**2 > MOST_BORDER * height * width
        if too_few or features.requires_grad:
            return super().forward(features)
        if by not in self._transformed:
            self._transformed[by] = by.transform(self.weight)
        below, beside = rows * by.step - height, columns * by.step - width
        padded = functional.pad(features.permute(0, 2, 3, 1), (0, 0, 1, 1 + beside, 1, 1 + below)).contiguous()
        at_once = max(1, self.out_channels // (CHANNELS_A_TILE * rows * columns))
        parts = [
            _convolve(part, self._transformed[by], by) for part in padded.split_with_sizes(_parts(images, at_once))
        ]
        outputs = torch.cat(parts)
        if self.bias is not None:
            outputs += self.bias
        return outputs[:, :height, :width].permute(0, 3, 1, 2)


def _parts(images: int, at_once: int) -> list[int]:
    """How many images go through at once, as equally as may be."""
    count = math.ceil(images / at_once)
    return [images * (part + 1) // count - images * part // count for part in range(count)]


def _convolve(padded: Tensor, weights: Tensor, by: Filtering) -> Tensor:
    """`(N, H, W, C)` with a border to `(N, H, W, K)` without one; sides without the border are whole steps."""
    images, height, width, channels = padded.shape
    rows, columns = (height - 2) // by.step, (width - 2) // by.step
    image, row, column, channel = padded.stride()
    shape = (by.tile, by.tile, images, rows, columns, channels)
    tiles = padded.as_strided(shape, (row, column, image, by.step * row, by.step * column, channel))
    points = (by.into_points @ tiles.reshape(by.tile**2, -1)).view(by.tile**2, -1, channels)
    products = torch.bmm(points, weights).flatten(1)
    outputs = (by.from_points @ products).view(by.step, by.step, images, rows, columns, -1)
    return outputs.permute(2, 3, 0, 4, 1, 5).reshape(images, by.step * rows, by.step * columns, -1)


def is_suited(module: nn.Module) -> bool:
    """Whether a module is a convolution that this computes as it does, and mostly sooner."""
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (3, 3)
        and module.stride == (1, 1)
        and module.dilation == (1, 1)
        and module.padding in ((1, 1), "same")
        and module.padding_mode == "zeros"
        and module.groups == 1
        and min(module.in_channels, module.out_channels) >= FEWEST_CHANNELS
    )


def use_winograd(network: nn.Module) -> int:
    """Replaces the convolutions of a network that are suited, in place.

    Args:
        network: in float32 and evaluation mode, on the CPU.

    Returns:
        How many were replaced.
    """
    named = list(network.named_modules(remove_duplicate=False))
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    replaced: dict[nn.Module, nn.Module] = {one: WinogradConvolution(one) for one in convolutions if is_suited(one)}
    for name, module in named:
        if module in replaced:
            network.set_submodule(name, replaced[module])
    return len(replaced)
