"""What of the scores a client is told."""

from collections.abc import Sequence

import numpy as np

from service.engine import Scores
from service.schemas import Classification, Score


def best_scores(scores: Scores, labels: Sequence[str], top_k: int) -> Classification:
    """The best class, and the `top_k` best scores (all if there are fewer classes), best first."""
    order = np.argsort(-scores, kind="stable")[:top_k].tolist()
    best = [Score(label=labels[index], index=index, score=min(float(scores[index]), 1.0)) for index in order]
    return Classification(label=best[0].label, index=best[0].index, scores=best)
