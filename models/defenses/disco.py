"""DISCO (Ho and Vasconcelos 2022): one purifier on the whole image, with a local ensemble; and an ensemble of them."""

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.defenses.defense import Defense
from models.purifier import Purifier
from models.randomness import RandomBytes


class DISCO(Defense):
    """Every query goes through the same purifier, with four decoder evaluations a pixel.

    Args:
        purifier: that one.
    """

    name: ClassVar[str] = "disco"

    def __init__(self, purifier: Purifier) -> None:
        super().__init__()
        self.purifier = purifier

    def draw(self, random_bytes: RandomBytes) -> Tensor:
        """Draws nothing: `(N, 0)`."""
        return random_bytes(0)

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: ARG002
        """The purified images."""
        return self.purifier.with_local_ensemble(images)


class DISCOEnsemble(Defense):
    """The mean of what all purifiers make of the whole image: deterministic, at K times the cost of one.

    Args:
        purifiers: all K.
    """

    name: ClassVar[str] = "disco-ensemble"

    def __init__(self, purifiers: Iterable[Purifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(purifiers)

    def draw(self, random_bytes: RandomBytes) -> Tensor:
        """Draws nothing: `(N, 0)`."""
        return random_bytes(0)

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: ARG002
        """The mean of the purified images."""
        purified = [member.with_local_ensemble(images) for member in self.members if isinstance(member, Purifier)]
        return torch.stack(purified).mean(dim=0)
