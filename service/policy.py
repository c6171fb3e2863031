"""What of the scores a client is told."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.engine import Scores
from service.schemas import Classification, Output

DECIMALS = 2
"""Of rounded scores: steps of 0.01, under which the small differences that score-based attacks follow disappear."""


def tell(scores: Scores, labels: Sequence[str], output: Output, top_k: int, most: int) -> Classification:
    """The answer about one image under an output policy.

    Args:
        scores: of every class.
        labels: of every class.
        output: `scores` tells as many as are asked for; `top_k` at most `most`; `rounded` too, to two decimals;
            `label` none at all.
        top_k: how many the client asks for.
        most: how many `top_k` and `rounded` tell at most.
    """
    match output:
        case "scores":
            return best_scores(scores, labels, top_k)
        case "top_k":
            return best_scores(scores, labels, min(top_k, most))
        case "rounded":
            return _rounded(scores, labels, min(top_k, most))
        case "label":
            best = best_scores(scores, labels, 1)
            return Classification(label=best.label, index=best.index, scores=None)


def best_scores(scores: Scores, labels: Sequence[str], top_k: int) -> Classification:
    """The best class, and the `top_k` best scores (all if there are fewer classes), best first."""
    order = np.argsort(-scores, kind="stable")[:top_k].tolist()
    return _classification(scores, labels, order)


def _rounded(scores: Scores, labels: Sequence[str], top_k: int) -> Classification:
    """Scores that are equal once rounded come in the order of their classes, since another order would tell them apart.

    The best class alone stands where it stands anyway: its label is told.
    """
    rounded = np.round(scores.astype(np.float64), DECIMALS)
    best = int(np.argmax(scores))
    others = [index for index in np.argsort(-rounded, kind="stable").tolist() if index != best]
    return _classification(rounded, labels, [best, *others][:top_k])


def _classification(scores: NDArray[np.floating], labels: Sequence[str], order: list[int]) -> Classification:
    values = scores[order].tolist()
    told = [
        {"label": labels[index], "index": index, "score": min(value, 1.0)}
        for index, value in zip(order, values, strict=True)
    ]
    best = order[0]
    return Classification.model_validate({"label": labels[best], "index": best, "scores": told})
