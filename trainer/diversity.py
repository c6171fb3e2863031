"""How diverse a finished pool is: figures that the paper defines but does not report, and a warning of twins."""

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from models.bundle import Bundle
from models.diversity import error_correlation, flip_rate, logit_variance, nu, pairwise_distance
from trainer.adversary import LEVELS
from trainer.images import LabeledImages
from trainer.inference import defended, outputs

TWINS = 0.95
"""Correlation of errors from which two purifiers count as one: 90 % of the variance of one's error is the other's."""


class Diversity(BaseModel):
    """How far the purifiers of a bundle, and the answers behind them, lie apart.

    Attributes:
        images: how many were looked at.
        nu: equation (5) of PuriDefense on clean images: the largest of the pairwise distances, which are mean l2 norms
            of the difference of two purified images.
        distance: the mean of the pairwise distances, on clean and on attacked images.
        logit_variance: across draws at the bundle's grid, on clean and on attacked images.
        flip_rate: how often a draw changes the answer, on clean and on attacked images.
        error_correlation: of the errors that every two purifiers leave on attacked images; mean over the pairs.
        twins: pairs of purifiers whose errors correlate by more than 0.95, and by how much.
        draws: passes for the variances.
        seed: of the draws.
    """

    model_config = ConfigDict(frozen=True)

    images: int
    nu: float
    distance: tuple[float, float]
    logit_variance: tuple[float, float]
    flip_rate: tuple[float, float]
    error_correlation: float
    twins: tuple[tuple[str, str, float], ...]
    draws: int
    seed: int


def measure_diversity(
    bundle: Bundle, clean: LabeledImages, attacked: LabeledImages, device: torch.device, draws: int, seed: int = 0
) -> Diversity | None:
    """Measures the pool of a bundle; nothing to measure where it has one purifier.

    Args:
        bundle: moved to `device`.
        clean: images that it has not seen in training.
        attacked: the same images, attacked.
        device: where it runs.
        draws: passes with fresh draws for the variances, at least 2.
        seed: of the draws.
    """
    if len(bundle.purifiers) == 1:
        return None
    on_clean, on_attacked = (_purified(bundle, images, device) for images in (clean, attacked))
    pairs = tuple(torch.triu_indices(len(on_clean), len(on_clean), offset=1))
    correlation = error_correlation(on_attacked, clean.images.float() / LEVELS)
    answers = [_answers(bundle, images, device, draws, seed) for images in (clean, attacked)]
    return Diversity(
        images=len(clean),
        nu=nu(on_clean),
        distance=(_mean(pairwise_distance(on_clean), pairs), _mean(pairwise_distance(on_attacked), pairs)),
        logit_variance=(logit_variance(answers[0]), logit_variance(answers[1])),
        flip_rate=(flip_rate(answers[0]), flip_rate(answers[1])),
        error_correlation=_mean(correlation, pairs),
        twins=_twins(tuple(bundle.purifiers), correlation),
        draws=draws,
        seed=seed,
    )


def _purified(bundle: Bundle, data: LabeledImages, device: torch.device) -> Tensor:
    """`(K, N, 3, H, W)`: all images behind each purifier alone."""
    return torch.stack([outputs(purifier.to(device), data, device) for purifier in bundle.purifiers.values()])


def _answers(bundle: Bundle, data: LabeledImages, device: torch.device, draws: int, seed: int) -> Tensor:
    """`(draws, N, classes)`: the logits of several passes behind the pool."""
    classify = defended(bundle, bundle.manifest.pool.grid, device, torch.Generator().manual_seed(seed))
    return torch.stack([outputs(classify, data, device) for _ in range(draws)])


def _mean(matrix: Tensor, pairs: tuple[Tensor, ...]) -> float:
    return float(matrix[pairs].mean())


def _twins(names: tuple[str, ...], correlation: Tensor) -> tuple[tuple[str, str, float], ...]:
    pairs = torch.triu_indices(len(names), len(names), offset=1).T.tolist()
    found = [(names[one], names[other], round(float(correlation[one, other]), 4)) for one, other in pairs]
    return tuple(pair for pair in found if pair[2] > TWINS)
