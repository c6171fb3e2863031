"""A routed pool whose architectures gather their windows first, and pass over those of the others no more."""

import math
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from models.pool import PurifierPool
from models.purifier import Purifier
from models.recorded.room import room
from models.recorded.routed_pool import NOT_HERE, RoutedPool

WORTHWHILE = 2**18
"""Pixels that its architectures are spared, all together, from which on a pool gathers.

From what ADR 22 measured on an H200: in a batch of one image, where nothing is spared, gathering took 0.07 ms more; in
one of 256, where our room spares 872,208 pixels, 0.42 ms less. If that was about the room then, and time grows evenly
in between, both ways take the same at 125,000. This is about twice that, for a way that pays no more than that is not
worth its recording. With the embedded pool 128 images of 32x32 pixels are enough, with that of ImageNet 8 of 224x224.
"""


class GatheredPool(PurifierPool):
    """A pool each of whose architectures passes over as many windows as it has room for, its own ones first.

    It gives the same as a routed one, whose networks it shares, where the draws fit (`holds`). Where more windows draw
    an architecture than it has room for, the last of these come out as NaN: whoever has not asked answers with nothing,
    and not with the pixels of another window. What it launches depends on the shape of the windows alone. One thread
    at a time may call it or the routed one.

    Args:
        routed: stays as it is.
    """

    def __init__(self, routed: RoutedPool) -> None:
        super().__init__(dict(zip(routed.names, cast("list[Purifier]", list(routed.purifiers)), strict=True)))
        self.routed = routed
        here = cast("Tensor", routed.owners).cpu() >= 0
        self._members: list[int] = here.sum(1).tolist()
        self._architectures = here.int().argmax(0)  # of each purifier; no buffer, since it is for draws of the CPU

    def pays(self, windows: int, pixels: int) -> bool:
        """Whether it is faster than the routed pool with so many windows of so many pixels each."""
        return pixels * sum(windows - kept for kept in self._rooms(windows)) >= WORTHWHILE

    def holds(self, draws: Tensor, windows: int) -> bool:
        """Whether the first windows all have room under these draws, whatever is drawn for windows after them.

        Args:
            draws: of the first windows, int64 on the CPU.
            windows: all that are passed over together.
        """
        counts = torch.bincount(self._architectures[draws], minlength=len(self._members)).tolist()
        return all(count <= kept for count, kept in zip(counts, self._rooms(windows), strict=True))

    def forward(self, windows: Tensor, draws: Tensor) -> Tensor:
        """Purifies each window once, or makes NaN of it where there is no room for it.

        Args:
            windows: `(M, 3, h, w)` float32 in [0, 1], at least one.
            draws: `(M,)` int64 on the device of the windows: the index of the purifier of each, in [0, K).

        Returns:
            `(M, 3, h, w)` float32 in [0, 1].
        """
        windows = windows.contiguous(memory_format=torch.channels_last)
        count, rooms = len(windows), self._rooms(len(windows))
        owners = cast("Tensor", self.routed.owners)[:, draws]
        slots = first_places(owners >= 0, max(rooms))
        sources = slots.clamp(max=count - 1)  # an empty slot takes any window, and its owner is nobody
        owners = owners.gather(1, sources).masked_fill(slots == count, NOT_HERE)
        parts = [
            partial(_purified, stack, windows, source[:kept], mine[:kept])
            for stack, source, mine, kept in zip(self.routed.architectures, sources, owners, rooms, strict=True)
        ]
        # A row more than there are windows: what empty slots hold ends up in it.
        shape, order = (count + 1, *windows.shape[1:]), torch.channels_last
        merged = torch.empty(shape, dtype=windows.dtype, device=windows.device, memory_format=order).fill_(math.nan)
        for purified, places, kept in zip(self.routed.branches(parts, windows.device), slots, rooms, strict=True):
            merged.index_copy_(0, places[:kept], purified)
        return merged[:count]

    def _rooms(self, windows: int) -> list[int]:
        return [room(windows, members, len(self)) for members in self._members]


def first_places(here: Tensor, most: int) -> Tensor:
    """Where the first true entries of each row are, in their order.

    Args:
        here: `(rows, M)` bool.
        most: entries that are looked for in each row.

    Returns:
        `(rows, most)` int64 in [0, M], ascending; M where a row has no more of them.
    """
    so_far = here.cumsum(1)
    numbers = torch.arange(1, most + 1, device=here.device).repeat(len(here), 1)
    return torch.searchsorted(so_far, numbers)


def _purified(stack: nn.Module, windows: Tensor, source: Tensor, owners: Tensor) -> Tensor:
    return stack(windows[source], owners)  # type: ignore[no-any-return]
