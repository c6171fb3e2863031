"""What counts as a hit, and when an image is finished."""

import pytest
import torch
from torch import Tensor

from evaluation.ball import Ball
from evaluation.oracle import Oracle
from evaluation.trial import Stopping, Trial

BALL = Ball("linf", 0.1)
CLEAN = torch.full((1, 3, 2, 2), 0.5)


class ScriptedTarget:
    """Says what its script says: 1 is wrong, 0 is right."""

    deterministic = False

    def __init__(self, script: list[int], levels: int | None = None) -> None:
        self.script = iter(script)
        self.levels = levels
        self.seen = torch.empty(0)

    def labels(self, images: Tensor) -> Tensor:
        self.seen = images
        return torch.tensor([next(self.script) for _ in images])

    def scores(self, images: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(self.labels(images), 2).float()


def trial(script: list[int], budget: int = 20, stopping: Stopping = Stopping.CONFIRMED) -> Trial:
    return Trial(Oracle(ScriptedTarget(script), 1, budget), CLEAN, torch.tensor([0]), BALL, stopping)


def ask(one: Trial, *changes: float) -> None:
    one.wrong(torch.tensor([0]), torch.stack([CLEAN[0] + change for change in changes])[None])


def test_the_first_hit_is_the_number_of_the_query_that_was_misread() -> None:
    one = trial([0, 0, 1, 0], stopping=Stopping.HIT)
    ask(one, 0)
    ask(one, 0.01, 0.02, 0.03)

    assert one.first_hits.tolist() == [3]
    assert one.finished.all()
    torch.testing.assert_close(one.found, CLEAN + 0.02)


def test_a_misread_image_outside_of_the_ball_is_no_hit() -> None:
    one = trial([1], stopping=Stopping.HIT)
    ask(one, 0.2)

    assert one.first_hits.tolist() == [0]
    assert not one.finished.any()


@pytest.mark.parametrize(
    ("checks", "finished"),
    [
        ([0], False),
        ([1, 0], False),
        ([1, 1, 0, 0, 0, 0, 0, 1, 1], False),
        ([1, 1, 0, 0, 0, 0, 1, 1, 1], True),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1], True),
    ],
)
def test_a_hit_is_believed_if_most_of_nine_further_answers_are_wrong(checks: list[int], finished: bool) -> None:
    one = trial([1, *checks])
    ask(one, 0.01)

    assert one.first_hits.tolist() == [1]
    assert one.finished.tolist() == [finished]
    assert one.oracle.spent.tolist() == [1 + len(checks)]


def test_the_last_query_of_a_budget_needs_no_check() -> None:
    one = trial([1], budget=1)
    ask(one, 0.01)

    assert one.finished.all()


def test_an_attack_that_goes_on_to_the_end_finishes_no_image_and_asks_nothing_twice() -> None:
    one = trial([1, 1, 0], stopping=Stopping.BUDGET)
    ask(one, 0.01, 0.02, 0.03)

    assert one.first_hits.tolist() == [1]
    assert one.oracle.spent.tolist() == [3]
    assert one.active().tolist() == [0]


def test_what_is_returned_is_what_finished_the_image_else_the_incumbent_in_the_ball() -> None:
    hit, open_ = trial([1], stopping=Stopping.HIT), trial([0])
    ask(hit, 0.01)
    ask(open_, 0.01)

    torch.testing.assert_close(hit.returned(CLEAN + 1), CLEAN + 0.01)
    torch.testing.assert_close(open_.returned(CLEAN + 1), CLEAN + 0.1)


def test_what_was_wrong_again_is_handed_in_where_no_image_was_confirmed() -> None:
    """Three of nine, then one of two, then none: the first is the best bet, and better than what was never checked."""
    one = trial([1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 0], budget=40)
    ask(one, 0.01)
    ask(one, 0.02)
    ask(one, 0.03)

    assert not one.finished.any()
    assert one.oracle.spent.tolist() == [15]
    torch.testing.assert_close(one.returned(CLEAN + 0.05), CLEAN + 0.01)


def test_an_image_that_was_right_when_asked_about_again_is_not_handed_in() -> None:
    one = trial([1, 0])
    ask(one, 0.01)

    torch.testing.assert_close(one.returned(CLEAN + 0.05), CLEAN + 0.05)


BYTES = torch.full((1, 3, 2, 2), 100 / 255)


def rounding(script: list[int], ball: Ball) -> tuple[Trial, ScriptedTarget]:
    target = ScriptedTarget(script, 255)
    return Trial(Oracle(target, 1, 20), BYTES, torch.tensor([0]), ball, Stopping.HIT), target


def test_what_is_handed_in_is_what_a_rounding_target_sees_of_the_incumbent() -> None:
    one, target = rounding([0], Ball("linf", 8 / 255))
    incumbent = BYTES + 2.55 / 255
    one.wrong(torch.tensor([0]), incumbent[None])

    torch.testing.assert_close(target.seen, BYTES + 3 / 255)
    torch.testing.assert_close(one.returned(incumbent), BYTES + 3 / 255)


def test_a_candidate_that_rounding_would_carry_out_of_the_ball_is_rounded_inwards_and_may_hit() -> None:
    ball = Ball("l2", 3.6 / 255 * 12**0.5)
    one, target = rounding([1], ball)
    one.wrong(torch.tensor([0]), (BYTES + 3.6 / 255)[None])

    torch.testing.assert_close(target.seen, BYTES + 3 / 255)
    assert one.first_hits.tolist() == [1]


def test_a_candidate_out_of_the_ball_is_rounded_to_the_nearest_level_and_hits_nothing() -> None:
    one, target = rounding([1], Ball("linf", 3 / 255))
    one.wrong(torch.tensor([0]), (BYTES + 3.6 / 255)[None])

    torch.testing.assert_close(target.seen, BYTES + 4 / 255)
    assert one.first_hits.tolist() == [0]
