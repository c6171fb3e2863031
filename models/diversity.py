"""How different the purifiers of a pool are: what an attacker who averages over their answers has to pay for.

Pure functions of what purifiers and classifiers gave; nothing here runs a network.
"""

import torch
from torch import Tensor


def pairwise_distance(outputs: Tensor) -> Tensor:
    """How far the purified images of every two purifiers lie apart.

    Args:
        outputs: `(K, N, C, H, W)` floats in [0, 1]: what each of K purifiers makes of the same N images.

    Returns:
        `(K, K)` float64: the l2 norm of the difference of two outputs, as a mean over the images.
    """
    flat = outputs.double().flatten(2).transpose(0, 1)
    return torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").mean(0)


def nu(outputs: Tensor) -> float:
    """The diversity of a pool (PuriDefense, equation 5): the largest of the pairwise distances; 0 for one purifier.

    Args:
        outputs: `(K, N, C, H, W)` floats in [0, 1].
    """
    return float(pairwise_distance(outputs).max())


def error_correlation(outputs: Tensor, clean: Tensor) -> Tensor:
    """Whether purifiers leave the same residuals: the correlation of their errors, over all pixels of all images.

    Args:
        outputs: `(K, N, C, H, W)` floats in [0, 1], of N attacked images.
        clean: `(N, C, H, W)`, the images before the attack.

    Returns:
        `(K, K)` float64 in [-1, 1]; NaN where a purifier makes no error at all.
    """
    return torch.corrcoef((outputs.double() - clean.double()).flatten(1)).view(len(outputs), len(outputs))


def logit_variance(logits: Tensor) -> float:
    """The variance of a logit over independent draws, as a mean over images and classes.

    Args:
        logits: `(draws, N, classes)` floats; at least two draws.
    """
    return float(logits.double().var(0).mean())


def flip_rate(logits: Tensor) -> float:
    """How often the answer to one image differs from the answer it gets most often, in [0, 1].

    Args:
        logits: `(draws, N, classes)` floats.
    """
    answers = logits.argmax(2)
    usual = answers.mode(0).values
    return float((answers != usual).double().mean())
