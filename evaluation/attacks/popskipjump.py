"""HopSkipJump for targets that answer at random, in the manner of PopSkipJump (Simon-Gabriel et al. 2021)."""

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from evaluation.attacks.hopskipjump import HopSkipJump
from evaluation.trial import Trial

PLACES = 64
SLOPES = (4.0, 16.0, 64.0, 256.0)
"""Of the sigmoid between `rightly read` and `misread`, on a line of length 1."""
LAPSES = (0.0, 0.05, 0.2)
"""Shares of answers that have nothing to do with the place on the line."""


class PopSkipJump(HopSkipJump):
    """Searches the boundary as a noisy one: each answer moves a belief about where on the line it turns.

    The answer is taken for a sigmoid of the place, of unknown position, slope and share of lapses, with a belief over
    a grid of all three; each query is put where the expected position lies. Where the belief settles the line is
    crossed half of the time. What differs from the published attack: it chooses queries by their information, and
    adapts the number of directions to the noise it finds; here these are `delta_scale` and `evaluations`.

    Attributes:
        looks: queries of one search.
    """

    kind: Literal["popskipjump"] = "popskipjump"  # type: ignore[assignment]
    looks: PositiveInt = 25

    def search_queries(self, trial: Trial) -> int:  # noqa: ARG002
        """The looks."""
        return self.looks

    def search(self, trial: Trial, rows: Tensor, current: Tensor) -> None:
        """Moves images of `current` to where half of the answers are expected to be wrong."""
        far, farthest = current.clone(), self.farthest(trial, current)
        places = (torch.arange(PLACES, device=current.device) + 0.5) / PLACES
        belief = torch.zeros(len(current), PLACES, len(SLOPES), len(LAPSES), device=current.device)
        for _ in range(self.looks):
            rows = rows[trial.able(rows)]
            if not len(rows):
                break
            share = _position(belief[rows], places)
            between = self.nearer(trial, rows, far[rows], share * farthest[rows])
            wrong = trial.wrong(rows, between[:, None])[:, 0]
            likely = _misread_probability(share, places)
            belief[rows] += torch.where(wrong[:, None, None, None], likely, 1 - likely).log()
            current[rows] = self.nearer(trial, rows, far[rows], _position(belief[rows], places) * farthest[rows])


def _position(belief: Tensor, places: Tensor) -> Tensor:
    """The expected place of the boundary under `(R, places, slopes, lapses)` logarithms of weights: `(R,)`."""
    weights = torch.softmax(belief.flatten(1), dim=1).view_as(belief).sum((2, 3))
    return weights @ places


def _misread_probability(share: Tensor, places: Tensor) -> Tensor:
    """Of a query at `(R,)` shares, under each belief: `(R, places, slopes, lapses)`."""
    slopes, lapses = share.new_tensor(SLOPES), share.new_tensor(LAPSES)
    turned = torch.sigmoid((share[:, None] - places)[:, :, None] * slopes)[..., None]
    return ((1 - lapses) * turned + lapses / 2).clamp(1e-4, 1 - 1e-4)
