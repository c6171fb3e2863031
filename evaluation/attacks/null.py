"""The null attack: asking again and again about the clean image, the line that every attack has to beat."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from evaluation.attacks.attack import LINF_EIGHT, Attack
from evaluation.ball import Ball
from evaluation.trial import Trial


class Null(Attack):
    """Hits as soon as the clean image is misread; one query is enough where the answer is always the same."""

    ball: ClassVar[Ball] = LINF_EIGHT
    kind: Literal["null"] = "null"

    def run(self, trial: Trial, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Asks one query at a time; the images stay as they are."""
        while len(rows := trial.active()):
            trial.wrong(rows, trial.images[rows, None])
            if trial.oracle.target.deterministic:
                break
        return trial.images
