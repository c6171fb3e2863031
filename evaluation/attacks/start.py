"""Where attacks on labels start: an image that is misread, however far away; every look at one is a query."""

import torch
from torch import Tensor

from evaluation.trial import Trial


def misread_noise(trial: Trial, attempts: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Uniform noise that the target misreads, for each image for which some was found.

    The first query of each image is about itself.

    Args:
        trial: who is asked.
        attempts: how many noises are tried for an image.
        generator: of the noise.

    Returns:
        `(R,)` int64, the images that have a start and are not finished; `(N, 3, H, W)` the starts.
    """
    rows = trial.active()
    trial.wrong(rows, trial.images[rows, None])
    starts = trial.images.clone()
    started = torch.zeros(len(starts), dtype=torch.bool)
    for _ in range(attempts):
        active = trial.active()
        rows = active[~started[active]]
        if not len(rows):
            break
        noise = torch.rand(starts[rows].shape, generator=generator, device=generator.device)
        wrong = trial.wrong(rows, noise[:, None])[:, 0]
        found = rows[wrong.cpu()]
        starts[found], started[found] = noise[wrong], True
    return (started & ~trial.finished).nonzero().flatten(), starts
