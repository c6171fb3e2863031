"""The only way from an attack to its target: every query counts, and the budget of each image is hard."""

import torch
from torch import Tensor

from evaluation.errors import BudgetExceededError
from evaluation.target import Target


class Oracle:
    """Counts what is asked about each image.

    Args:
        target: who answers.
        images: N, how many images are attacked.
        budget: the most queries about each.
    """

    def __init__(self, target: Target, images: int, budget: int) -> None:
        self.target = target
        self.budget = budget
        self.spent = torch.zeros(images, dtype=torch.int64)

    def scores(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """Asks for scores.

        Args:
            rows: `(R,)` int64 on the CPU, distinct: the images that the candidates belong to.
            candidates: `(R, S, 3, H, W)` float32 in [0, 1]: S queries about each of these images.

        Returns:
            `(R, S, classes)` probabilities.

        Raises:
            BudgetExceededError: an image has fewer than S queries left; none of the queries is asked.
        """
        self._pay(rows, candidates.shape[1])
        scores = self.target.scores(candidates.flatten(0, 1))
        return scores.view(*candidates.shape[:2], scores.shape[1])

    def labels(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """Asks for labels, `(R, S)` int64; else like `scores`."""
        self._pay(rows, candidates.shape[1])
        return self.target.labels(candidates.flatten(0, 1)).view(candidates.shape[:2])

    def remaining(self, rows: Tensor) -> Tensor:
        """How many queries about each of `(R,)` images are left, `(R,)` int64."""
        return self.budget - self.spent[rows]

    def _pay(self, rows: Tensor, queries: int) -> None:
        if (self.remaining(rows) < queries).any():
            raise BudgetExceededError(f"{queries} queries about an image that has fewer left of its {self.budget}")
        self.spent[rows] += queries
