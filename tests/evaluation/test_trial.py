"""What counts as a hit, and when an image is finished."""

import pytest
import torch
from torch import Tensor

from evaluation.ball import Ball
from evaluation.oracle import Oracle
from evaluation.recheck import CHECKS
from evaluation.trial import PAUSE, Stopping, Trial

BALL = Ball("linf", 0.1)
CLEAN = torch.full((1, 3, 2, 2), 0.5)


class ScriptedTarget:
    """Says what its script says: 1 is wrong, 0 is right."""

    deterministic = False
    coarse = False
    sticky = False

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
        ([1, 1, 0, 0, 1, 1, 1, 1, 1], False),
        ([1, 1, 0, 1, 1, 1, 1, 1, 1, *[0, 1, 0]], False),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, *[1, 1, 1, 1, 1, 0, 1, 0]], False),
        ([1, 1, 0, 1, 1, 1, 1, 1, 1, *[1, 1, 0, 1, 1, 1, 1, 1, 1]], True),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, *[1, 1, 1, 1, 1, 1, 1, 1, 1]], True),
    ],
)
def test_an_image_is_finished_if_twice_eight_of_nine_answers_are_wrong_again(checks: list[int], finished: bool) -> None:
    one = trial([1, *checks], budget=39)
    ask(one, 0.01)

    assert one.first_hits.tolist() == [1]
    assert one.finished.tolist() == [finished]
    assert one.oracle.spent.tolist() == [1 + len(checks)]


SEVEN_OF_NINE = [1, 1, 1, 1, 1, 1, 1, 0, 0]


def test_after_a_long_check_hits_are_believed_for_a_while_without_another() -> None:
    script = [1, *SEVEN_OF_NINE, *[1] * (PAUSE - 1), 1, *[1] * 8, 0, 0, *[1] * 8]
    one = trial(script, budget=200)
    for change in [0.01, *[0.02] * (PAUSE - 1)]:
        ask(one, change)

    assert one.oracle.spent.tolist() == [CHECKS + PAUSE]
    torch.testing.assert_close(one.found, CLEAN + 0.01)
    ask(one, 0.03)
    assert one.finished.all()
    torch.testing.assert_close(one.found, CLEAN + 0.03)


def test_a_check_ends_where_the_candidate_cannot_be_as_good_as_what_is_kept() -> None:
    """Seven of nine are kept: three right answers are too many."""
    script = [1, *SEVEN_OF_NINE, *[0] * PAUSE, 1, 1, 1, 0, 0, 0]
    one = trial(script, budget=200)
    for _ in range(PAUSE + 1):
        ask(one, 0.01)
    ask(one, 0.02)

    assert one.oracle.spent.tolist() == [len(script)]


def test_of_two_candidates_that_are_wrong_as_often_the_later_is_kept() -> None:
    one = trial([1, 1, 0, 1, 1, 0], budget=40)
    ask(one, 0.01)
    ask(one, 0.02)

    torch.testing.assert_close(one.found, CLEAN + 0.02)


def test_what_was_lucky_the_first_nine_times_is_given_up_for_what_is_wrong_as_often_by_itself() -> None:
    """Eight of nine, then two of four: no better than seven of nine, which come after a pause."""
    script = [1, *[1] * 8, 0, *[1, 0, 1, 0], *[0] * PAUSE, 1, *SEVEN_OF_NINE]
    one = trial(script, budget=200)
    for _ in range(PAUSE + 1):
        ask(one, 0.01)
    ask(one, 0.02)

    assert not one.finished.any()
    torch.testing.assert_close(one.found, CLEAN + 0.02)


def test_what_is_given_up_does_not_take_the_place_of_what_is_wrong_more_often() -> None:
    """Seven of nine are kept; eight of nine and then none of two are less."""
    script = [1, *SEVEN_OF_NINE, *[0] * PAUSE, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 0, 0]
    one = trial(script, budget=200)
    for _ in range(PAUSE + 1):
        ask(one, 0.01)
    ask(one, 0.02)

    assert one.oracle.spent.tolist() == [len(script)]
    torch.testing.assert_close(one.found, CLEAN + 0.01)


def test_a_second_check_takes_nothing_of_what_is_kept_for_the_end() -> None:
    one = trial([*[0] * 27, 1, *[1] * 10], budget=40)
    ask(one, *[0.01] * 27)
    ask(one, 0.02)

    assert one.oracle.spent.tolist() == [38]
    assert not one.finished.any()


def test_a_check_takes_nothing_of_what_is_kept_for_the_end() -> None:
    one = trial([*[0] * 36, 1, 1, 1, 1], budget=40)
    ask(one, *[0.01] * 36)
    ask(one, 0.02)

    assert one.oracle.spent.tolist() == [38]


def test_a_share_of_the_budget_is_kept_for_the_end_where_answers_are_doubted() -> None:
    doubting, believing = trial([], budget=500), trial([], budget=500, stopping=Stopping.HIT)

    assert doubting.remaining(torch.tensor([0])).tolist() == [500 - CHECKS]
    assert believing.remaining(torch.tensor([0])).tolist() == [500]
    assert trial([], budget=40).remaining(torch.tensor([0])).tolist() == [38]
    doubting.oracle.spent[0] = 500 - CHECKS
    assert not len(doubting.active())


def test_at_the_end_the_incumbent_is_asked_about_and_handed_in_if_it_is_wrong_as_often() -> None:
    """One of two is kept; of the nine answers about the incumbent four are wrong."""
    one = trial([1, 1, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0], budget=12)
    ask(one, 0.01)

    torch.testing.assert_close(one.hand_in(CLEAN + 0.05), CLEAN + 0.05)
    assert one.oracle.spent.tolist() == [12]
    assert one.first_hits.tolist() == [1]


def test_an_incumbent_that_is_misread_at_the_end_alone_is_hit_then() -> None:
    one = trial([0, 0, 0, 1, 0, 0, 0, 0, 0, 0], budget=40)
    ask(one, 0.01)
    one.hand_in(CLEAN + 0.05)

    assert one.first_hits.tolist() == [4]


def test_an_attack_that_goes_on_to_the_end_finishes_no_image_and_asks_nothing_twice() -> None:
    one = trial([1, 1, 0], stopping=Stopping.BUDGET)
    ask(one, 0.01, 0.02, 0.03)

    assert one.first_hits.tolist() == [1]
    assert one.oracle.spent.tolist() == [3]
    assert one.active().tolist() == [0]


def test_what_is_handed_in_is_what_finished_the_image_else_the_incumbent_in_the_ball() -> None:
    hit, open_ = trial([1], stopping=Stopping.HIT), trial([0], stopping=Stopping.HIT)
    ask(hit, 0.01)
    ask(open_, 0.01)

    torch.testing.assert_close(hit.hand_in(CLEAN + 0.05), CLEAN + 0.01)
    torch.testing.assert_close(open_.hand_in(CLEAN + 0.05), CLEAN + 0.05)
    assert (hit.oracle.spent + open_.oracle.spent).tolist() == [2]


@pytest.mark.parametrize("answer", [0, 1])
def test_an_incumbent_out_of_the_ball_is_asked_about_in_the_ball_before_it_is_handed_in(answer: int) -> None:
    one = trial([1, answer], stopping=Stopping.HIT)
    ask(one, 1.0)

    torch.testing.assert_close(one.hand_in(CLEAN + 1), CLEAN + 0.1)
    assert one.first_hits.tolist() == [2 * answer]


def test_nothing_is_asked_about_it_where_no_query_is_left() -> None:
    one = trial([1], budget=1, stopping=Stopping.HIT)
    ask(one, 1.0)

    torch.testing.assert_close(one.hand_in(CLEAN + 1), CLEAN + 0.1)
    assert one.oracle.spent.tolist() == [1]


def test_what_was_wrong_again_is_handed_in_where_it_was_so_more_often_than_the_incumbent() -> None:
    """One of two, then none; then of the incumbent none of the eight that it takes to be sure."""
    one = trial([1, 1, 0, 1, 0, *[0] * 8], budget=40)
    ask(one, 0.01)
    ask(one, 0.02)

    torch.testing.assert_close(one.hand_in(CLEAN + 0.05), CLEAN + 0.01)
    assert one.oracle.spent.tolist() == [13]


def test_an_image_that_was_right_when_asked_about_again_is_not_handed_in() -> None:
    one = trial([1, 0, *[0] * CHECKS])
    ask(one, 0.01)

    torch.testing.assert_close(one.hand_in(CLEAN + 0.05), CLEAN + 0.05)


BYTES = torch.full((1, 3, 2, 2), 100 / 255)


def rounding(script: list[int], ball: Ball) -> tuple[Trial, ScriptedTarget]:
    target = ScriptedTarget(script, 255)
    return Trial(Oracle(target, 1, 20), BYTES, torch.tensor([0]), ball, Stopping.HIT), target


def test_what_is_handed_in_is_what_a_rounding_target_sees_of_the_incumbent() -> None:
    one, target = rounding([0], Ball("linf", 8 / 255))
    incumbent = BYTES + 2.55 / 255
    one.wrong(torch.tensor([0]), incumbent[None])

    torch.testing.assert_close(target.seen, BYTES + 3 / 255)
    torch.testing.assert_close(one.hand_in(incumbent), BYTES + 3 / 255)


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
