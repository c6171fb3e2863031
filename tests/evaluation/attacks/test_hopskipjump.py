"""HopSkipJump where the target rounds to 8 bits, and its least probe."""

import pytest
import torch
from pydantic import PrivateAttr
from torch import Tensor

from evaluation.attacks import HopSkipJump
from evaluation.ball import Ball, Norm
from evaluation.trial import Stopping, Trial
from tests.evaluation.conftest import SIDE, LinearTarget, MakeTrial

PIXELS = 3 * SIDE * SIDE


class AnsweredTarget(LinearTarget):
    """Keeps what it has answered."""

    def __init__(self, flips: float = 0.0) -> None:
        super().__init__(flips)
        self.answers: list[Tensor] = []

    def scores(self, images: Tensor) -> Tensor:
        scores = super().scores(images)
        self.answers.append(scores.argmax(1))
        return scores


class RoundingTarget(AnsweredTarget):
    """Sees whole levels of 8 bits."""

    levels = 255

    def scores(self, images: Tensor) -> Tensor:
        return super().scores(torch.round(images * 255) / 255)


def assert_later_probes_differ(target: AnsweredTarget, make_trial: MakeTrial, norm: Norm) -> None:
    """Of most images both classes are answered in the second and in the third estimate."""
    trial = make_trial(target, Ball(norm, 1e-4), 1000, Stopping.BUDGET)

    HopSkipJump().run(trial, torch.Generator().manual_seed(3))

    estimates = [answers.view(12, -1) for answers in target.answers if len(answers) in (12 * 141, 12 * 173)]
    assert len(estimates) == 2
    for answers in estimates:
        assert int((answers != answers[:, :1]).any(1).sum()) >= 10


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_probes_of_a_rounding_target_get_differing_answers(make_trial: MakeTrial, norm: Norm) -> None:
    assert_later_probes_differ(RoundingTarget(), make_trial, norm)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_search_on_a_rounding_target_ends_at_half_a_level(make_trial: MakeTrial, norm: Norm) -> None:
    target = RoundingTarget()
    trial = make_trial(target, Ball(norm, 1e-4), 150, Stopping.BUDGET)

    HopSkipJump().run(trial, torch.Generator().manual_seed(3))

    before = target.batches.index(12 * 100)
    looks = sum(size < 12 for size in target.batches[2:before])
    assert before - 2 - looks <= 9  # a start is at most 255 levels away


@pytest.mark.parametrize("iteration", [1, 5])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_probe_is_at_least_as_many_levels_a_pixel_as_asked_for(
    make_trial: MakeTrial, norm: Norm, iteration: int
) -> None:
    trial = make_trial(LinearTarget(), Ball(norm, 1e-4), 100)
    reach = torch.full((12,), 0.03)

    delta = HopSkipJump(probe=4.0)._delta(trial, trial.images, reach, iteration)
    least = HopSkipJump()._delta(trial, trial.images, reach, iteration)

    torch.testing.assert_close(delta * 255 / PIXELS**0.5, torch.full((12,), 4.0))
    assert (least < delta / 2).all()


class Watched(HopSkipJump):
    """Keeps what each search gave, and what the longest one of an image cost."""

    _found: list[Tensor] = PrivateAttr(default_factory=list)
    _longest: int = PrivateAttr(default=0)
    _left: list[Tensor] = PrivateAttr(default_factory=list)

    def search(self, trial: Trial, rows: Tensor, current: Tensor) -> None:
        before = trial.oracle.spent.clone()
        super().search(trial, rows, current)
        self._found.append(current.clone())
        self._left.append(trial.remaining(torch.arange(len(current))))
        self._longest = max(self._longest, int((trial.oracle.spent - before).max()))


@pytest.mark.parametrize("budget", [150, 250, 400, 600])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_budget_does_not_end_between_a_step_and_its_search(make_trial: MakeTrial, norm: Norm, budget: int) -> None:
    """What is returned lies at the boundary: a hundredth nearer most are read rightly."""
    trial = make_trial(LinearTarget(), Ball(norm, 1e-4), budget, Stopping.BUDGET)

    found = HopSkipJump().run(trial, torch.Generator().manual_seed(3))

    nearer = torch.lerp(trial.images, found, 0.99)
    assert (LinearTarget().labels(found) != trial.labels).all()
    assert int((LinearTarget().labels(nearer) == trial.labels).sum()) >= 10
    assert (trial.oracle.spent > budget - 45).all()


@pytest.mark.parametrize("budget", [250, 400, 600])
def test_on_a_random_target_that_is_doubted_the_last_search_is_a_whole_one(make_trial: MakeTrial, budget: int) -> None:
    """Though hits are asked about again from the same budget. The last estimate is shortened for it."""
    trial = make_trial(LinearTarget(0.02), Ball("linf", 0.003), budget)
    attack = Watched()

    attack.run(trial, torch.Generator().manual_seed(3))

    standing = ~trial.finished
    assert int(standing.sum()) >= 3
    assert (attack._left[-1][standing] > 0).all()


def test_a_search_on_a_random_target_ends_at_the_length_of_a_probe(make_trial: MakeTrial) -> None:
    trials = [make_trial(LinearTarget(flips), Ball("linf", 1e-4), 400, Stopping.BUDGET) for flips in (0.01, 0.0)]
    random, same = Watched(), Watched()
    random.run(trials[0], torch.Generator().manual_seed(3))
    same.run(trials[1], torch.Generator().manual_seed(3))

    assert random._longest == 8  # 2 ** 8 is more than the 192 numbers of an image
    assert same._longest > 14


def test_what_the_last_search_on_a_random_target_gave_is_returned(make_trial: MakeTrial) -> None:
    trial = make_trial(LinearTarget(0.01), Ball("linf", 1e-4), 400, Stopping.BUDGET)
    attack = Watched()

    returned = attack.run(trial, torch.Generator().manual_seed(3))

    assert int((returned == attack._found[-1]).flatten(1).all(1).sum()) >= 7
    assert len(attack._found) > 2


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_later_probes_of_a_random_target_get_differing_answers_from_both_sides(
    make_trial: MakeTrial, norm: Norm
) -> None:
    """With a search that ends that early, the published probe would not reach across the boundary."""
    assert_later_probes_differ(AnsweredTarget(flips=1e-6), make_trial, norm)


@pytest.mark.parametrize(("coarse", "levels", "least"), [(True, None, 1.0), (False, 255, 4.0), (True, 255, 4.0)])
def test_a_probe_is_not_lost_on_a_target_that_rounds_or_computes_in_few_digits(
    make_trial: MakeTrial, coarse: bool, levels: int | None, least: float
) -> None:
    target = LinearTarget()
    target.coarse, target.levels = coarse, levels
    trial = make_trial(target, Ball("linf", 1e-4), 100)

    delta = HopSkipJump()._delta(trial, trial.images, torch.full((12,), 0.03), 5)

    torch.testing.assert_close(delta * 255 / PIXELS**0.5, torch.full((12,), least))


def test_only_near_the_ball_queries_are_kept_for_asking_again(make_trial: MakeTrial) -> None:
    trial = make_trial(LinearTarget(flips=0.01), Ball("linf", 0.01), 400)
    attack = HopSkipJump()

    far, near = (attack._afterwards(trial, trial.images + distance, refresh=1) for distance in (0.03, 0.015))

    assert (near - far == trial.check_queries).all()
    assert (near == attack._afterwards(trial, trial.images, refresh=1)).all()
    assert trial.check_queries == 18
