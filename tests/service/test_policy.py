"""What of the scores a client is told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine import Scores
from service.policy import best_scores, tell
from service.schemas import Classification, Output, Score

LABELS = ("airplane", "bird", "cat", "deer")


def told_scores(answer: Classification) -> list[Score]:
    assert answer.scores is not None
    return answer.scores


def scores(*values: float) -> Scores:
    return np.array(values, np.float32)


def test_the_best_class_is_the_answer() -> None:
    answer = best_scores(scores(0.1, 0.2, 0.6, 0.1), LABELS, 1)
    assert (answer.label, answer.index) == ("cat", 2)


def test_scores_come_best_first() -> None:
    answer = best_scores(scores(0.1, 0.2, 0.4, 0.3), LABELS, 4)
    assert [score.label for score in told_scores(answer)] == ["cat", "deer", "bird", "airplane"]


def test_each_score_bears_the_label_and_the_number_of_its_class() -> None:
    (best,) = told_scores(best_scores(scores(0.125, 0.25, 0.5, 0.125), LABELS, 1))
    assert best.model_dump() == {"label": "cat", "index": 2, "score": 0.5}


def test_of_equal_scores_the_lower_class_comes_first() -> None:
    answer = best_scores(scores(0.25, 0.25, 0.25, 0.25), LABELS, 4)
    assert [score.index for score in told_scores(answer)] == [0, 1, 2, 3]


@pytest.mark.parametrize(("top_k", "told"), [(1, 1), (3, 3), (4, 4), (5, 4), (10**30, 4)])
def test_as_many_scores_are_told_as_were_asked_for_if_there_are_so_many(top_k: int, told: int) -> None:
    assert len(told_scores(best_scores(scores(0.4, 0.3, 0.2, 0.1), LABELS, top_k))) == told


def test_a_score_that_rounding_lifts_above_one_is_told_as_one() -> None:
    (best,) = told_scores(best_scores(scores(np.nextafter(np.float32(1), np.float32(2)), 0, 0, 0), LABELS, 1))
    assert best.score == 1.0


def test_a_score_that_is_no_number_is_never_told_as_certainty() -> None:
    with pytest.raises(ValueError, match="nan"):
        best_scores(scores(np.nan, np.nan, np.nan, np.nan), LABELS, 4)


@given(values=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), top_k=st.integers(1, 6))
def test_no_score_that_is_left_out_is_better_than_one_that_is_told(values: list[float], top_k: int) -> None:
    told = told_scores(best_scores(scores(*values), LABELS, top_k))
    left_out = [value for index, value in enumerate(values) if index not in {score.index for score in told}]
    assert [score.score for score in told] == sorted((score.score for score in told), reverse=True)
    assert all(value <= told[-1].score for value in left_out)


FAMILIAR = scores(0.123, 0.611, 0.126, 0.14)


def told(output: Output, *, top_k: int, most: int = 2) -> dict[int, float] | None:
    """What is told of `FAMILIAR`, by class, in the order in which it is told."""
    answer = tell(FAMILIAR, LABELS, output, top_k, most)
    assert (answer.label, answer.index) == ("bird", 1)
    return None if answer.scores is None else {score.index: round(score.score, 6) for score in answer.scores}


def test_scores_are_told_as_many_as_are_asked_for() -> None:
    assert told("scores", top_k=3) == {1: 0.611, 3: 0.14, 2: 0.126}


def test_top_k_tells_no_more_than_its_most_whatever_is_asked_for() -> None:
    assert told("top_k", top_k=1) == {1: 0.611}
    assert told("top_k", top_k=4) == {1: 0.611, 3: 0.14}


def test_rounded_tells_two_decimals_and_no_more_scores_than_its_most() -> None:
    assert told("rounded", top_k=4) == {1: 0.61, 3: 0.14}


def test_label_tells_no_score_at_all() -> None:
    assert told("label", top_k=4) is None


@given(
    others=st.lists(st.integers(0, 40), min_size=3, max_size=3),
    nudges=st.lists(st.floats(-0.004, 0.004), min_size=3, max_size=3),
)
def test_what_rounding_hides_is_not_told_by_the_order_either(others: list[int], nudges: list[float]) -> None:
    plain = [hundredths / 100 for hundredths in others]
    nudged = [max(0.0, score + nudge) for score, nudge in zip(plain, nudges, strict=True)]
    assert tell(scores(0.9, *nudged), LABELS, "rounded", 4, 4) == tell(scores(0.9, *plain), LABELS, "rounded", 4, 4)
