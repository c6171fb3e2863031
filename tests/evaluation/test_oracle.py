"""Every query is counted for its image, and no image gets more than its budget."""

import pytest
import torch

from evaluation.errors import BudgetExceededError
from evaluation.oracle import Oracle
from tests.evaluation.conftest import LinearTarget


@pytest.mark.parametrize("ask", [Oracle.scores, Oracle.labels])
def test_queries_are_counted_for_each_image(ask: object) -> None:
    assert callable(ask)
    target = LinearTarget()
    oracle = Oracle(target, images=3, budget=10)

    ask(oracle, torch.tensor([0, 2]), torch.rand(2, 4, 3, 8, 8))
    ask(oracle, torch.tensor([2]), torch.rand(1, 5, 3, 8, 8))

    assert oracle.spent.tolist() == [4, 0, 9]
    assert target.asked == 13


def test_a_query_over_the_budget_of_one_image_is_not_asked() -> None:
    target = LinearTarget()
    oracle = Oracle(target, images=2, budget=3)
    oracle.scores(torch.tensor([1]), torch.rand(1, 2, 3, 8, 8))

    with pytest.raises(BudgetExceededError, match="2 queries"):
        oracle.scores(torch.tensor([0, 1]), torch.rand(2, 2, 3, 8, 8))

    assert target.asked == 2
    assert oracle.spent.tolist() == [0, 2]


def test_answers_belong_to_the_images_that_they_were_asked_about() -> None:
    target = LinearTarget()
    candidates = torch.rand(2, 4, 3, 8, 8)

    scores = Oracle(target, images=2, budget=4).scores(torch.tensor([0, 1]), candidates)

    torch.testing.assert_close(scores[1], target.scores(candidates[1]))
