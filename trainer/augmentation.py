"""Random flips and shifts of a batch, drawn from a generator that the caller owns."""

import torch
from torch import Tensor
from torch.nn import functional

EVEN_ODDS = 0.5


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors each image of `(N, C, H, W)` left to right with probability 1/2."""
    mirrored = torch.rand(len(images), generator=generator) < EVEN_ODDS
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)


def random_crop(images: Tensor, size: int, padding: int, generator: torch.Generator) -> Tensor:
    """Cuts a `size` x `size` window at a random place of each image, reflected at its borders by `padding` pixels."""
    if padding:
        images = functional.pad(images.float(), [padding] * 4, mode="reflect").to(images.dtype)
    count, _, height, width = images.shape
    top = torch.randint(height - size + 1, (count, 1, 1), generator=generator)
    left = torch.randint(width - size + 1, (count, 1, 1), generator=generator)
    rows = top + torch.arange(size).view(1, -1, 1)
    columns = left + torch.arange(size).view(1, 1, -1)
    index = torch.arange(count).view(-1, 1, 1)
    return images.permute(0, 2, 3, 1)[index, rows, columns].permute(0, 3, 1, 2)
