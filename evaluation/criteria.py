"""When an answer counts as a success of the attack, and how far from it a score is."""

import torch
from torch import Tensor

SMALLEST_SCORE = 1e-30
"""Keeps the logarithm of a score finite; far below what a served float32 score tells apart."""


def misread(answers: Tensor, labels: Tensor) -> Tensor:
    """Whether each of `(R, S)` answered labels is another than the image's own, `(R,)`: `(R, S)` bool."""
    return answers != labels[:, None]


def margin(scores: Tensor, labels: Tensor) -> Tensor:
    """How clearly each answer is still right: below 0 it is wrong.

    It is the difference of the logits of the right class and of the best other one, which a client can tell from the
    scores: the logarithm of their ratio (the loss of Square, Andriushchenko et al. 2020, section 3).

    Args:
        scores: `(R, S, classes)` probabilities.
        labels: `(R,)` int64.

    Returns:
        `(R, S)`.
    """
    logs = scores.clamp_min(SMALLEST_SCORE).log()
    own = labels[:, None, None].expand(*scores.shape[:2], 1)
    right = logs.gather(2, own).squeeze(2)
    other = logs.scatter(2, own, -torch.inf).amax(2)
    return right - other
