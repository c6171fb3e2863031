"""Random flips and crops: drawn first, then applied, so that several processes can draw for a batch and share it."""

import torch
from torch import Tensor
from torch.nn import functional

from models.device import send

EVEN_ODDS = 0.5


def draw_flips(count: int, generator: torch.Generator) -> Tensor:
    """`(count,)` bool on the CPU: whether an image is mirrored; even odds."""
    return torch.rand(count, generator=generator) < EVEN_ODDS


def flip(images: Tensor, flips: Tensor) -> Tensor:
    """Mirrors those of `(N, C, H, W)` left to right that `(N,)` `flips` say."""
    return torch.where(send(flips, images.device).view(-1, 1, 1, 1), images.flip(3), images)


def draw_corners(count: int, freedom: int, generator: torch.Generator) -> Tensor:
    """`(count, 2)` int64 on the CPU: top and left of a crop that can move by `freedom` pixels each way."""
    return torch.randint(freedom + 1, (count, 2), generator=generator)


def crop(images: Tensor, corners: Tensor, size: int) -> Tensor:
    """Cuts a `size` x `size` window out of each of `(N, C, H, W)`, whose top and left `(N, 2)` `corners` say."""
    top, left = send(corners, images.device).view(-1, 2, 1, 1).unbind(1)
    rows = top + torch.arange(size, device=images.device).view(1, -1, 1)
    columns = left + torch.arange(size, device=images.device).view(1, 1, -1)
    index = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    return images.permute(0, 2, 3, 1)[index, rows, columns].permute(0, 3, 1, 2)


def reflect(images: Tensor, padding: int) -> Tensor:
    """Widens `(N, C, H, W)` by `padding` pixels on every side, which mirror what lies inside."""
    if not padding:
        return images
    return functional.pad(images.float(), [padding] * 4, mode="reflect").to(images.dtype)
