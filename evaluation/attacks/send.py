"""Sending an image until it is misread: who made it for nothing is free to send it again."""

from collections.abc import Iterator
from itertools import repeat

import torch
from torch import Tensor

from evaluation.trial import Trial

LEVEL = 1 / 255
MIDDLE = 0.5


def send(trial: Trial, rows: Tensor, images: Tensor, generator: torch.Generator) -> None:
    """Asks about images of `(N, 3, H, W)`, those of `(R,)` rows, until each is misread or its budget is spent.

    A random target has to read it rightly each time. Where the same image is always answered alike, one query is
    enough, unless that is because draws are sticky: an image one level away draws anew there, another one each time.
    """
    rows = rows[trial.able(rows)]
    for candidates in _candidates(trial, images, generator):
        if not len(rows):
            return
        trial.wrong(rows, candidates[rows, None])
        rows = rows[trial.able(rows) & (trial.first_hits[rows] == 0)]


def _candidates(trial: Trial, images: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """What is sent, one after another, all `(N, 3, H, W)`."""
    target = trial.oracle.target
    yield images
    if target.sticky:
        for place in torch.randperm(images[0].numel(), generator=generator, device=generator.device):
            yield nudged(images, trial.images, place)
    elif not target.deterministic:
        yield from repeat(images)


def nudged(images: Tensor, centers: Tensor, place: Tensor) -> Tensor:
    """`(N, 3, H, W)` images with one number of each, at `place` in it, changed by a level.

    It comes nearer to its center; where it is there already, nearer to the middle of [0, 1]. So an image stays in an
    l-infinity ball that is not smaller than a level.
    """
    flat, center = images.flatten(1).clone(), centers.flatten(1)[:, place]
    values = flat[:, place]
    at_center = (values - center).abs() < LEVEL / 2
    rises = torch.where(at_center, values < MIDDLE, values < center)
    flat[:, place] = torch.where(rises, values + LEVEL, values - LEVEL)
    return flat.view_as(images)
