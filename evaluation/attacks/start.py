"""Where attacks on labels start: an image that is misread, however far away; every look at one is a query."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from evaluation.attacks.footing import mostly_misread
from evaluation.trial import Trial

NOISES = 10
"""Looks at uniform noise, then at images of other labels, before coarse noise takes the rest."""
COARSE_SIDES = (1, 2, 4, 8)
"""Of the grids that coarse noise is blown up from; the first is a single flat color."""


def misread_starts(trial: Trial, attempts: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """An image that the target misreads, for each image for which some was found.

    The first query of each image is about itself. A classifier may read all uniform noise as one class, so that images
    of this class need other starts: images of the trial that bear other labels, where there are any, and noise that is
    smooth. Where the target is random, a start has to be misread by most of a few answers.

    Args:
        trial: who is asked.
        attempts: how many images are tried as the start of an image.
        generator: of the noise and the choice.

    Returns:
        `(R,)` int64, the images that have a start and are not finished; `(N, 3, H, W)` the starts.
    """
    rows = trial.active()
    trial.wrong(rows, trial.images[rows, None])
    starts = trial.images.clone()
    started = torch.zeros(len(starts), dtype=torch.bool)
    for attempt in range(attempts):
        active = trial.active()
        rows = active[~started[active]]
        if not len(rows):
            break
        tried = _candidates(trial, rows, attempt, generator)
        wrong = trial.wrong(rows, tried[:, None])[:, 0]
        rows, tried = rows[wrong.cpu()], tried[wrong]
        if not trial.oracle.target.deterministic:
            misread = mostly_misread(trial, rows, tried)
            rows, tried = rows[misread], tried[misread.to(tried.device)]
        starts[rows], started[rows] = tried, True
    return (started & ~trial.finished).nonzero().flatten(), starts


def _candidates(trial: Trial, rows: Tensor, attempt: int, generator: torch.Generator) -> Tensor:
    """What is tried as the start of each of `(R,)` images: `(R, 3, H, W)`."""
    shape = trial.images[rows].shape
    if attempt < NOISES:
        return torch.rand(shape, generator=generator, device=generator.device)
    side = COARSE_SIDES[attempt % len(COARSE_SIDES)]
    grid = torch.rand((*shape[:2], side, side), generator=generator, device=generator.device)
    coarse = interpolate(grid, shape[2:], mode="bilinear")
    if attempt >= 2 * NOISES:
        return coarse
    weights = (trial.labels != trial.labels[rows, None]).float()
    lonely = weights.sum(1) == 0
    weights[lonely] = 1
    others = trial.images[torch.multinomial(weights, 1, generator=generator)[:, 0]]
    return torch.where(lonely[:, None, None, None], coarse, others)
