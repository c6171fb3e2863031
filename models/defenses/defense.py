"""What stands before a classifier: one interface, so that any defense can be served, measured and attacked."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from models.randomness import RandomBytes


class Defense(nn.Module, ABC):
    """Draws for a batch of queries, then transforms their images.

    The two are apart so that whoever asks can repeat, record or fix the draws.

    Attributes:
        name: what the defense is called in settings, metrics and results.
        purifiers: the names of the purifiers that the draws point at; empty where a defense has none.
    """

    name: ClassVar[str]
    purifiers: tuple[str, ...] = ()

    @abstractmethod
    def draw(self, random_bytes: RandomBytes) -> Tensor:
        """Draws for N queries: `(N, draws)` on the CPU. Where there are purifiers, int64 indices into them."""

    def without(self, purifier: str) -> "Defense":
        """The same defense without one of its purifiers, for when that fails; draws point at those that are left.

        Raises:
            ValueError: it has no purifier of that name, or no other.
        """
        raise ValueError(f"{self.name} has no purifier called {purifier!r}")

    @abstractmethod
    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        """Transforms `(N, 3, H, W)` floats in [0, 1] into the same shape and range, under `(N, draws)` draws."""
