"""The pool: K purifiers, and the routing of each window to the one that was drawn for it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.purifier import Purifier


class PurifierPool(nn.Module):
    """K purifiers behind one call.

    Windows that drew the same purifier go through it together, whichever images they come from, so the work is that of
    one purifier however large K is.

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
            ValueError: there is not one draw for each window.
        """
        if draws.shape != windows.shape[:1]:
            raise ValueError(f"draws of shape {tuple(draws.shape)} for {len(windows)} windows")
        if not len(windows):
            return windows
        order = torch.argsort(draws, stable=True).to(windows.device)
        counts = torch.bincount(draws, minlength=len(self)).tolist()
        groups = torch.split(windows[order], counts)
        purified = [purifier(group) for purifier, group in zip(self.purifiers, groups, strict=True) if len(group)]
        return torch.empty_like(windows).index_copy_(0, order, torch.cat(purified))
