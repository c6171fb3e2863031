"""The noise that query attacks put on images, drawn without a query, so that purifiers learn to remove it too.

Attacks with gradients leave dense noise that is fitted to a network; a purifier that has seen nothing else leaves much
of what black-box attacks do. Square paints stripes and squares of full strength (Andriushchenko et al. 2020, section
4). SimBA moves single pixels far (Guo et al. 2019, algorithm 1). Estimated gradients and walks along a boundary (NES,
HopSkipJump, Boundary) begin as dense random noise.
"""

from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator
from torch import Tensor

from trainer.adversary import LEVELS, Strength, onto_levels, uniform

STRIPED = 0.7
"""Share of the painted images that begin with stripes, as Square does."""
VERTICAL = 0.5
MOST_SQUARES = 30
LARGEST_SQUARE = 0.25
"""Side of a square at most, as a share of the image's; Square begins with a twentieth of the area, 0.22 of the side."""
DOTTED = (0.001, 0.01)
"""Share of the values that are moved alone: 25 of SimBA's steps of 0.2 fit into an l2 ball of 1, 0.008 of 3,072."""
DOT_LEVELS = (25.0, 64.0)
FAMILIES = 3
PAINTED, SPOTTED = 0, 1


class QueryNoise(BaseModel):
    """How much of it there is in a batch.

    Each image gets one of three families, with even odds: stripes and squares of plus or minus epsilon, sparse single
    values moved by 25 to 64 levels, or dense normal noise of deviation epsilon, cut off at epsilon.

    Attributes:
        images: noisy images in a batch.
        epsilon: strength in units of 1/255, drawn for each image; both ends belong to the range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: PositiveInt
    epsilon: tuple[Strength, Strength]

    @model_validator(mode="after")
    def _low_first(self) -> "QueryNoise":
        low, high = self.epsilon
        if low > high:
            raise ValueError(f"epsilon: {low} is above {high}; a range is written low first")
        return self

    def draw(self, shape: torch.Size, generator: torch.Generator) -> "NoiseDraw":
        """Draws the noise of images of `shape`, `(N, C, H, W)`; `generator`, of the CPU, is the only randomness."""
        count = shape[0]
        family = torch.randint(FAMILIES, (count,), generator=generator).view(-1, 1, 1, 1)
        epsilon = uniform(self.epsilon, count, generator) / LEVELS
        painted = epsilon * _painted(shape, generator)
        dots = torch.rand(shape, generator=generator) < uniform(DOTTED, count, generator)
        spotted = dots * _signs(shape, generator) * uniform(DOT_LEVELS, count, generator) / LEVELS
        dense = torch.clamp(epsilon * torch.randn(shape, generator=generator), -epsilon, epsilon)
        return NoiseDraw(torch.where(family == PAINTED, painted, torch.where(family == SPOTTED, spotted, dense)))


@dataclass(frozen=True)
class NoiseDraw:
    """What was drawn for one batch.

    Attributes:
        offsets: `(N, C, H, W)` float32, what is added to each image in [0, 1].
    """

    offsets: Tensor

    def part(self, chosen: slice) -> "NoiseDraw":
        """The draw for some of the images."""
        return NoiseDraw(self.offsets[chosen])

    def add(self, images: Tensor) -> Tensor:
        """Noisy copies of `(N, C, H, W)` float32 images in [0, 1]; in [0, 1], and on the grid of 8-bit images."""
        return onto_levels(torch.clamp(images + self.offsets.to(images.device), 0, 1), images)


def _painted(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Stripes one pixel wide under squares of any side and place, each channel plus or minus 1; 0 where nothing is.

    Square's stripes are vertical. Half of these are horizontal, so that turning an attack does not help it.
    """
    count, channels, height, width = shape
    striped, vertical = (torch.rand((count, 1, 1, 1), generator=generator) < odds for odds in (STRIPED, VERTICAL))
    columns, rows = _signs((count, channels, 1, width), generator), _signs((count, channels, height, 1), generator)
    painted = striped * torch.where(vertical, columns, rows)
    squares = torch.randint(MOST_SQUARES + 1, (count,), generator=generator)
    largest = max(1, int(LARGEST_SQUARE * min(height, width)))
    for number in range(MOST_SQUARES):
        side = torch.randint(1, largest + 1, (count,), generator=generator)
        inside = _span(height, side, generator)[:, None, :, None] & _span(width, side, generator)[:, None, None, :]
        signs = _signs((count, channels, 1, 1), generator)
        painted = torch.where(inside & (number < squares).view(-1, 1, 1, 1), signs, painted)
    return painted


def _span(length: int, side: Tensor, generator: torch.Generator) -> Tensor:
    """`side` neighbors out of `length` at a random place, for each of `(N,)` sides: `(N, length)` bool."""
    begin = (torch.rand(len(side), generator=generator) * (length - side + 1)).long()[:, None]
    places = torch.arange(length)
    return (places >= begin) & (places < begin + side[:, None])


def _signs(shape: torch.Size | tuple[int, ...], generator: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(2, tuple(shape), generator=generator) - 1
