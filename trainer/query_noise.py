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

from models.device import send
from trainer.adversary import LEVELS, Strength, onto_levels, uniform

STRIPED = 0.7
"""Share of the painted images that begin with stripes, as Square does."""
VERTICAL = 0.5
MOST_SQUARES = 30
"""Fewer than the bits of an int32, in which a pixel keeps the squares that cover it."""
LARGEST_SQUARE = 0.75
"""Side of a square at most, as a share of the image's. Square begins with a twentieth of the area, 0.22 of the side;
nothing keeps an attacker from half of it, which is 0.71."""
DOTTED = (0.001, 0.01)
"""Share of the values that are moved alone: 25 of SimBA's steps of 0.2 fit into an l2 ball of 1, 0.008 of 3,072."""
DOT_LEVELS = (25.0, 64.0)
FAMILIES = 3
PAINTED, SPOTTED, DENSE = range(FAMILIES)


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
        family = torch.randint(FAMILIES, shape[:1], generator=generator)
        epsilon = uniform(self.epsilon, shape[0], generator) / LEVELS
        offsets = torch.empty(shape)
        for one, drawn in ((PAINTED, _painted), (SPOTTED, _spotted), (DENSE, _dense)):
            members = (family == one).nonzero().flatten()
            some = torch.Size([len(members), *shape[1:]])
            offsets[members] = drawn(some, epsilon[members], generator)
        return NoiseDraw(offsets)


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
        return onto_levels(torch.clamp(images + send(self.offsets, images.device), 0, 1), images)


def _painted(shape: torch.Size, epsilon: Tensor, generator: torch.Generator) -> Tensor:
    """Stripes one pixel wide under squares, each channel of both plus or minus epsilon; 0 where nothing is.

    Square's stripes are vertical. Half of these are horizontal, so that turning an attack does not help it.
    """
    count, channels, height, width = shape
    striped, vertical = (torch.rand((count, 1, 1, 1), generator=generator) < odds for odds in (STRIPED, VERTICAL))
    columns, rows = _signs((count, channels, 1, width), generator), _signs((count, channels, height, 1), generator)
    stripes = striped * torch.where(vertical, columns, rows)
    covered, positive = _squares(shape, generator)
    return epsilon * torch.where(covered, 2.0 * positive - 1, stripes)


def _squares(shape: torch.Size, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Squares of any place, which lie one on another, and of sides up to a largest that each image draws for itself.

    So most squares are small, as the later ones of an attack are, and some are as large as the first that it may make.
    The squares that cover a pixel are the bits of one number: painting them one by one would take as long as a step of
    a GPU.

    Returns:
        `(N, 1, H, W)` bool, where there is one, and `(N, C, H, W)` bool, whether it raises that channel.
    """
    count, channels, height, width = shape
    bits = 2 ** torch.arange(MOST_SQUARES, dtype=torch.int32)
    there = torch.randint(MOST_SQUARES + 1, (count, 1), generator=generator) > torch.arange(MOST_SQUARES)
    largest = _side(torch.full((count, 1), max(1.0, LARGEST_SQUARE * min(height, width))), generator)
    side = _side(largest.expand(-1, MOST_SQUARES), generator)
    in_rows, in_columns = (
        ((_span(length, side, generator) & there[..., None]) * bits[:, None]).sum(1, dtype=torch.int32)
        for length in (height, width)
    )
    covering = (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
    topmost = covering & -covering
    signs = torch.randint(2**MOST_SQUARES, (count, channels, 1, 1), dtype=torch.int32, generator=generator)
    return covering != 0, (topmost & signs) != 0


def _side(largest: Tensor, generator: torch.Generator) -> Tensor:
    """A whole number from 1 to each of `largest`, with even odds."""
    return 1 + (torch.rand(largest.shape, generator=generator) * largest.floor()).long()


def _spotted(shape: torch.Size, epsilon: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001 - one form
    """Single values moved far, whatever epsilon is."""
    dots = torch.rand(shape, generator=generator) < uniform(DOTTED, shape[0], generator)
    return dots * _signs(shape, generator) * uniform(DOT_LEVELS, shape[0], generator) / LEVELS


def _dense(shape: torch.Size, epsilon: Tensor, generator: torch.Generator) -> Tensor:
    """Normal noise of deviation epsilon, cut off there."""
    return epsilon * torch.randn(shape, generator=generator).clamp_(-1, 1)


def _span(length: int, side: Tensor, generator: torch.Generator) -> Tensor:
    """`side` neighbors out of `length` at a random place, for each side: of its shape and `length`, bool."""
    begin = (torch.rand(side.shape, generator=generator) * (length - side + 1)).long()[..., None]
    places = torch.arange(length)
    return (places >= begin) & (places < begin + side[..., None])


def _signs(shape: torch.Size | tuple[int, ...], generator: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(2, tuple(shape), generator=generator, dtype=torch.int8) - 1
