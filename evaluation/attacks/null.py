"""The null attack: asking again and again about the clean image, the line that every attack has to beat."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from evaluation.attacks.attack import LINF_EIGHT, Attack
from evaluation.ball import Ball
from evaluation.trial import Trial


class Null(Attack):
    """Asks no more about an image once it was misread; one query is enough where the answer is always the same."""

    ball: ClassVar[Ball] = LINF_EIGHT
    revision: ClassVar[int] = 2
    kind: Literal["null"] = "null"

    def run(self, trial: Trial, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Asks one query at a time; the images stay as they are."""
        rows = trial.active()
        while len(rows):
            trial.wrong(rows, trial.images[rows, None])
            if trial.oracle.target.deterministic:
                break
            rows = trial.active()
            rows = rows[trial.first_hits[rows] == 0]
        return trial.images
