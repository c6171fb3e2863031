"""One interface for all attacks; an attack is its settings, stored with its results."""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from evaluation.ball import Ball
from evaluation.trial import Trial

LINF_EIGHT = Ball("linf", 8 / 255)
L2_ONE = Ball("l2", 1.0)


class Attack(BaseModel, ABC):
    """An attack that asks and is answered; it knows the budget, and whether its target is random.

    Subclasses have a `kind`, by which they are called in commands and results, and their settings.

    Attributes:
        ball: how far the paper lets it go on 32x32 images.
        revision: of its code; one more whenever the same settings give other results than before. What only concerns
            asking again is told by `recheck.REVISION`.
    """

    ball: ClassVar[Ball]
    revision: ClassVar[int] = 1

    model_config = ConfigDict(frozen=True, extra="forbid")

    def resolved(self) -> Self:
        """The same attack, with what else decides its result written into its settings; itself if nothing does."""
        return self

    @abstractmethod
    def run(self, trial: Trial, generator: torch.Generator) -> Tensor:
        """Attacks the images of `trial` until each is finished or its budget is spent.

        Args:
            trial: who is asked, and what is noted.
            generator: on the device of the images; the only randomness.

        Returns:
            `(N, 3, H, W)`: the best that the attack has for each image; may lie outside of the ball.
        """
