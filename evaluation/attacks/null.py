"""The null attack: asking again and again about the clean image, the line that every attack has to beat."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from evaluation.attacks.attack import LINF_EIGHT, Attack
from evaluation.attacks.send import send
from evaluation.ball import Ball
from evaluation.trial import Trial


class Null(Attack):
    """Asks no more about an image once it was misread; what `send` does with the clean one."""

    ball: ClassVar[Ball] = LINF_EIGHT
    revision: ClassVar[int] = 2
    kind: Literal["null"] = "null"

    def run(self, trial: Trial, generator: torch.Generator) -> Tensor:
        """Asks one query at a time; the images stay as they are, but for a level where draws are sticky."""
        send(trial, trial.active(), trial.images, generator)
        return trial.images
