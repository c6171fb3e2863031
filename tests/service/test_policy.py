"""What of the scores a client is told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine import Scores
from service.policy import best_scores

LABELS = ("airplane", "bird", "cat", "deer")


def scores(*values: float) -> Scores:
    return np.array(values, np.float32)


def test_the_best_class_is_the_answer() -> None:
    answer = best_scores(scores(0.1, 0.2, 0.6, 0.1), LABELS, 1)
    assert (answer.label, answer.index) == ("cat", 2)


def test_scores_come_best_first() -> None:
    answer = best_scores(scores(0.1, 0.2, 0.4, 0.3), LABELS, 4)
    assert [score.label for score in answer.scores] == ["cat", "deer", "bird", "airplane"]


def test_each_score_bears_the_label_and_the_number_of_its_class() -> None:
    best = best_scores(scores(0.125, 0.25, 0.5, 0.125), LABELS, 1).scores[0]
    assert best.model_dump() == {"label": "cat", "index": 2, "score": 0.5}


def test_of_equal_scores_the_lower_class_comes_first() -> None:
    answer = best_scores(scores(0.25, 0.25, 0.25, 0.25), LABELS, 4)
    assert [score.index for score in answer.scores] == [0, 1, 2, 3]


@pytest.mark.parametrize(("top_k", "told"), [(1, 1), (3, 3), (4, 4), (5, 4), (10**30, 4)])
def test_as_many_scores_are_told_as_were_asked_for_if_there_are_so_many(top_k: int, told: int) -> None:
    assert len(best_scores(scores(0.4, 0.3, 0.2, 0.1), LABELS, top_k).scores) == told


def test_a_score_that_rounding_lifts_above_one_is_told_as_one() -> None:
    assert best_scores(scores(np.nextafter(np.float32(1), np.float32(2)), 0, 0, 0), LABELS, 1).scores[0].score == 1.0


def test_a_score_that_is_no_number_is_never_told_as_certainty() -> None:
    with pytest.raises(ValueError, match="nan"):
        best_scores(scores(np.nan, np.nan, np.nan, np.nan), LABELS, 4)


@given(values=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), top_k=st.integers(1, 6))
def test_no_score_that_is_left_out_is_better_than_one_that_is_told(values: list[float], top_k: int) -> None:
    told = best_scores(scores(*values), LABELS, top_k).scores
    left_out = [value for index, value in enumerate(values) if index not in {score.index for score in told}]
    assert [score.score for score in told] == sorted((score.score for score in told), reverse=True)
    assert all(value <= told[-1].score for value in left_out)
