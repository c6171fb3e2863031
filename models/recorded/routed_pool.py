"""A pool whose purifiers of one architecture run as one network: its time on a GPU is that of one purifier."""

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from models.pool import PurifierPool
from models.purifier import Purifier, PurifierConfig
from models.recorded.branches import Branches
from models.recorded.routed_convolution import Route, routed

NOT_HERE = -1
"""The owner of a window whose purifier has another architecture."""


class RoutedPurifiers(nn.Module):
    """Purifiers of one architecture.

    Takes `(M, 3, h, w)` float32 in [0, 1] and `(M,)` int32 owners; gives `(M, 3, h, w)` float32, in which windows with
    a negative owner hold anything.

    Args:
        purifiers: a window's owner is an index into them.
    """

    def __init__(self, purifiers: list[Purifier]) -> None:
        super().__init__()
        self.route = Route()
        self.purifier = routed(purifiers, self.route)

    def forward(self, windows: Tensor, owners: Tensor) -> Tensor:
        self.route.owners = owners
        return self.purifier(windows)  # type: ignore[no-any-return]


class RoutedPool(PurifierPool):
    """A pool whose architectures pass over all windows, one after the other, and each skips those of the others.

    It gives the same as a plain one, but for rounding. What it launches depends on the shape of the windows alone, so
    that a CUDA graph can hold it; windows that are skipped still take less time. One thread at a time may call it.

    Args:
        pool: its purifiers stay as they are.
    """

    def __init__(self, pool: PurifierPool) -> None:
        purifiers = cast("list[Purifier]", list(pool.purifiers))
        super().__init__(dict(zip(pool.names, purifiers, strict=True)))
        members: dict[PurifierConfig, list[int]] = {}
        for index, purifier in enumerate(purifiers):
            members.setdefault(purifier.config, []).append(index)
        owners = torch.full((len(members), len(pool)), NOT_HERE, dtype=torch.int32)
        for row, indices in enumerate(members.values()):
            owners[row, indices] = torch.arange(len(indices), dtype=torch.int32)
        stacks = [RoutedPurifiers([purifiers[index] for index in indices]) for indices in members.values()]
        self.architectures = nn.ModuleList(stacks)
        self.branches = Branches()
        self.register_buffer("owners", owners.to(next(pool.parameters()).device))

    def forward(self, windows: Tensor, draws: Tensor) -> Tensor:
        """Purifies each window once.

        Args:
            windows: `(M, 3, h, w)` float32 in [0, 1].
            draws: `(M,)` int64 on the device of the windows: the index of the purifier of each, in [0, K).

        Returns:
            `(M, 3, h, w)` float32 in [0, 1].
        """
        # The corrections come channels last; added to windows in another order they would cost as much as the layers.
        windows = windows.contiguous(memory_format=torch.channels_last)
        owners = cast("Tensor", self.owners)[:, draws]
        stacks = zip(self.architectures, owners, strict=True)
        purified = self.branches([partial(stack, windows, mine) for stack, mine in stacks], windows.device)
        merged = purified[0]
        for candidate, mine in zip(purified[1:], owners[1:], strict=True):
            merged = torch.where((mine >= 0).view(-1, 1, 1, 1), candidate, merged)
        return merged
