"""The pool: K purifiers, and the routing of each window to the one that was drawn for it."""

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush

import torch
from torch import Tensor, nn

from models.purifier import Purifier


class PurifierPool(nn.Module):
    """K purifiers behind one call.

    Windows that drew the same purifier go through it together, whichever images they come from, so the work is that of
    one purifier however large K is. M windows take `min(M, K)` calls of purifiers whatever was drawn: a call takes time
    of its own, and would else tell how many different purifiers there were.

    Args:
        purifiers: by name; their order is that of the indices in `draws`.

    Raises:
        ValueError: there is no purifier.
    """

    def __init__(self, purifiers: Mapping[str, Purifier]) -> None:
        super().__init__()
        if not purifiers:
            raise ValueError("a pool needs at least one purifier")
        self.names = tuple(purifiers)
        self.purifiers = nn.ModuleList(purifiers.values())

    def __len__(self) -> int:
        return len(self.names)

    def without(self, name: str) -> "PurifierPool":
        """The pool of the other purifiers, which are shared with this one.

        Raises:
            ValueError: no purifier has that name, or there is no other.
        """
        if name not in self.names:
            raise ValueError(f"no purifier is called {name!r}")
        pairs = zip(self.names, self.purifiers, strict=True)
        return PurifierPool({other: purifier for other, purifier in pairs if other != name})  # type: ignore[misc]

    def forward(self, windows: Tensor, draws: Tensor) -> Tensor:
        """Purifies each window once.

        Args:
            windows: `(M, 3, h, w)` floats in [0, 1].
            draws: `(M,)` int64 on the CPU: the index of the purifier of each window.

        Returns:
            `(M, 3, h, w)` floats in [0, 1].

        Raises:
            ValueError: there is not one draw for each window, or one is of a purifier that is not there.
        """
        if draws.shape != windows.shape[:1]:
            raise ValueError(f"draws of shape {tuple(draws.shape)} for {len(windows)} windows")
        if not len(windows):
            return windows
        counts = torch.bincount(draws, minlength=len(self)).tolist()
        if len(counts) > len(self):
            raise ValueError(f"purifier {len(counts) - 1} was drawn from a pool of {len(self)}")
        order = torch.argsort(draws, stable=True).to(windows.device)
        calls = divide(counts, min(len(windows), len(self)))
        groups = torch.split(windows[order], [count for _, count in calls])
        purified = [self.purifiers[index](group) for (index, _), group in zip(calls, groups, strict=True)]
        return torch.empty_like(windows).index_copy_(0, order, torch.cat(purified))


def divide(counts: Sequence[int], calls: int) -> list[tuple[int, int]]:
    """Divides the windows of each purifier among so many calls; the largest groups are halved until there are enough.

    Args:
        counts: windows of each purifier; their sum is at least `calls`.
        calls: at least the purifiers that have windows.

    Returns:
        For each call the index of its purifier and the number of its windows, in the order of the purifiers.
    """
    heap = [(-count, index) for index, count in enumerate(counts) if count]
    heapify(heap)
    while len(heap) < calls:
        negative, index = heappop(heap)
        half = negative // 2
        heappush(heap, (half, index))
        heappush(heap, (negative - half, index))
    return sorted((index, -negative) for negative, index in heap)
