"""No defense: the classifier as it is, the line that everything else is measured against."""

from typing import ClassVar

from torch import Tensor

from models.defenses.defense import Defense
from models.randomness import RandomBytes


class NoDefense(Defense):
    """Gives every image back as it came."""

    name: ClassVar[str] = "none"

    def draw(self, random_bytes: RandomBytes) -> Tensor:
        """Draws nothing: `(N, 0)`."""
        return random_bytes(0)

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: ARG002
        """The images themselves."""
        return images
