"""Nudges: asking about images a level away from the clean one, which draw anew even where the same image never does."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from evaluation.attacks.attack import LINF_EIGHT, Attack
from evaluation.ball import Ball
from evaluation.trial import Trial

LEVEL = 1 / 255
MIDDLE = 0.5


class Nudge(Attack):
    """The null attack on a gateway with sticky draws: what these lose by themselves.

    Each query changes one channel of one pixel of the clean image by a level, another one each time, so there are as
    many queries about an image as it has numbers, at most. A hit is an adversarial example that works again and again
    there, for the draw stays with the image.
    """

    ball: ClassVar[Ball] = LINF_EIGHT
    kind: Literal["nudge"] = "nudge"

    def run(self, trial: Trial, generator: torch.Generator) -> Tensor:
        """Asks one query at a time, about the clean image first."""
        rows = trial.active()
        trial.wrong(rows, trial.images[rows, None])
        for place in torch.randperm(trial.images[0].numel(), generator=generator, device=generator.device):
            rows = trial.active()
            rows = rows[trial.first_hits[rows] == 0]
            if not len(rows):
                break
            trial.wrong(rows, nudged(trial.images[rows], place)[:, None])
        return trial.images


def nudged(images: Tensor, place: Tensor) -> Tensor:
    """`(R, 3, H, W)` images with one number of each, at `place` in it, a level nearer to the middle of [0, 1]."""
    flat = images.flatten(1).clone()
    values = flat[:, place]
    flat[:, place] = torch.where(values < MIDDLE, values + LEVEL, values - LEVEL)
    return flat.view_as(images)
