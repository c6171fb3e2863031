"""What a walk on a random target does about its incumbent: asks again, pays, and goes back where it was luck."""

import pytest
import torch
from torch import Tensor

from evaluation.attacks import Attack, Boundary, HopSkipJump, PopSkipJump
from evaluation.attacks.footing import RETREATS, Footing, mostly_misread
from evaluation.ball import Ball
from evaluation.oracle import Oracle
from evaluation.trial import Stopping, Trial
from tests.evaluation.conftest import LinearTarget, MakeTrial

BUDGET = 800


class ScriptedTarget:
    """Gives the answers it is told to, one a query, whatever is asked."""

    levels: int | None = None
    coarse = False
    sticky = False
    deterministic = False

    def __init__(self, wrong: list[int]) -> None:
        self.answers = list(wrong)

    def labels(self, images: Tensor) -> Tensor:
        return torch.tensor([self.answers.pop(0) for _ in images])

    def scores(self, images: Tensor) -> Tensor:
        raise NotImplementedError


class ThresholdTarget(ScriptedTarget):
    """Misreads what is brighter than a half."""

    def labels(self, images: Tensor) -> Tensor:
        return (images.flatten(1).mean(1) > 0.5).long()


def gray(*values: float) -> Tensor:
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, 2, 2).clone()


def trial_of(target: ScriptedTarget, images: int, budget: int) -> Trial:
    return Trial(
        Oracle(target, images, budget),
        gray(*[0.0] * images),
        torch.zeros(images).long(),
        Ball("l2", 0.1),
        Stopping.BUDGET,
    )


@pytest.mark.parametrize(
    ("answers", "budget", "misread", "paid"),
    [
        ([1, 1], 9, True, 2),
        ([0, 0], 9, False, 2),
        ([1, 0, 1], 9, True, 3),
        ([0, 1, 0], 9, False, 3),
        ([0], 1, False, 1),
        ([1, 0], 2, True, 2),
    ],
)
def test_most_of_a_few_paid_answers_decide(answers: list[int], budget: int, misread: bool, paid: int) -> None:
    trial = trial_of(ScriptedTarget(answers), 1, budget)

    assert bool(mostly_misread(trial, trial.active(), gray(0.9))) is misread
    assert trial.oracle.spent.tolist() == [paid]


def test_an_incumbent_that_is_read_rightly_goes_back_as_far_as_it_takes() -> None:
    trial = trial_of(ThresholdTarget([]), 5, 100)
    footing = Footing(gray(0.9, 0.9, 0.9, 0.9, 0.9))
    footing.firm = gray(0.7, 0.7, 0.6, 0.4, 0.9)
    current = gray(0.55, 0.45, 0.1, 0.2, 0.498)

    fallen = footing.regain(trial, trial.active(), current)

    assert fallen.tolist() == [1, 2, 3, 4]
    shares = torch.tensor([0.55, 0.45 + 0.25 * 0.25, 0.6, 0.4 + 0.25 * 0.5, 0.498 + 0.402 / 64])
    torch.testing.assert_close(current[:, 0, 0, 0], shares)
    assert torch.equal(footing.firm, current)


def test_a_walk_whose_start_is_read_rightly_by_now_pays_for_no_second_way_back() -> None:
    trial = trial_of(ThresholdTarget([]), 1, 100)

    Footing(gray(0.4)).regain(trial, trial.active(), gray(0.2))

    assert trial.oracle.spent.tolist() == [2 * (1 + len(RETREATS))]


def test_with_the_budget_spent_what_was_confirmed_stays_so() -> None:
    trial = trial_of(ThresholdTarget([]), 1, 2)
    footing = Footing(gray(0.9))
    footing.firm = gray(0.7)

    footing.regain(trial, trial.active(), gray(0.1))

    assert torch.equal(footing.firm, gray(0.7))


ON_LABELS = (Boundary, HopSkipJump, PopSkipJump)


LEFT: dict[type[Attack], int] = {Boundary: 6, HopSkipJump: 27, PopSkipJump: 44}
"""With fewer queries than that there is no whole step, or no direction with a step and a search after it."""
FAR = {"linf": 0.2, "l2": 1.5}
"""Less than half as far as uniform noise is."""


def near_and_misread(attack: Attack, trial: Trial) -> int:
    found = attack.run(trial, torch.Generator().manual_seed(3))
    near = trial.ball.distance(found, trial.images) < FAR[trial.ball.norm]
    return int((near & (LinearTarget().labels(found) != trial.labels)).sum())


@pytest.mark.parametrize("flips", [0.01, 0.1])
@pytest.mark.parametrize("kind", ON_LABELS)
def test_what_is_returned_from_a_random_target_is_near_and_truly_misread(
    kind: type[Boundary | HopSkipJump], make_trial: MakeTrial, flips: float
) -> None:
    trials = [make_trial(LinearTarget(flips), Ball(kind.ball.norm, 1e-4), BUDGET, Stopping.BUDGET) for _ in range(2)]

    published = near_and_misread(kind(refresh=0), trials[0])
    ours = near_and_misread(kind(), trials[1])

    assert ours >= 10
    assert ours > published
    assert (trials[1].oracle.spent > BUDGET - LEFT[kind]).all()


@pytest.mark.parametrize("kind", ON_LABELS)
def test_what_came_into_the_ball_is_handed_in_as_far_away_as_it_allows(
    kind: type[Boundary | HopSkipJump], make_trial: MakeTrial
) -> None:
    ball = Ball(kind.ball.norm, FAR[kind.ball.norm])
    trial = make_trial(LinearTarget(0.01), ball, BUDGET, Stopping.BUDGET)

    distance = ball.distance(kind().run(trial, torch.Generator().manual_seed(3)), trial.images)

    assert int((distance < 1.001 * ball.epsilon).sum()) >= 10
    assert (distance > 0.999 * ball.epsilon).all()


@pytest.mark.parametrize("kind", ON_LABELS)
def test_nothing_is_asked_twice_on_a_deterministic_target(
    kind: type[Boundary | HopSkipJump], make_trial: MakeTrial
) -> None:
    trials = [make_trial(LinearTarget(), Ball(kind.ball.norm, 1e-4), 400) for _ in range(2)]

    ours = kind().run(trials[0], torch.Generator().manual_seed(3))
    published = kind(refresh=0).run(trials[1], torch.Generator().manual_seed(3))

    assert torch.equal(ours, published)
    assert torch.equal(trials[0].oracle.spent, trials[1].oracle.spent)
