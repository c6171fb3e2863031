"""What holds for every attack on answers, whatever it is attacking."""

import pytest
import torch

from evaluation.attacks import ATTACKS, Attack
from evaluation.ball import Ball
from evaluation.images import Sample
from evaluation.trial import Stopping
from tests.evaluation.conftest import LinearTarget, MakeTrial

BLACK_BOX = sorted(ATTACKS.keys() - {"apgd", "transfer"})
BUDGETS = (1, 2, 150)
WEAK = {"linf": 0.004, "l2": 0.05}
STRONG = {"linf": 0.2, "l2": 4.0}


@pytest.fixture(params=BLACK_BOX)
def attack(request: pytest.FixtureRequest) -> Attack:
    return ATTACKS[request.param]()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("stopping", Stopping)
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("flips", [0.0, 0.2])
def test_the_budget_holds_and_what_is_counted_is_what_the_target_saw(
    attack: Attack, make_trial: MakeTrial, budget: int, flips: float, stopping: Stopping
) -> None:
    target = LinearTarget(flips)
    trial = make_trial(target, Ball(attack.ball.norm, WEAK[attack.ball.norm]), budget, stopping)

    trial.hand_in(attack.run(trial, seeded()))

    assert int(trial.oracle.spent.max()) <= budget
    assert int(trial.oracle.spent.sum()) == target.asked


@pytest.mark.parametrize("flips", [0.0, 0.2])
def test_what_is_returned_never_leaves_the_ball_or_the_range_of_pixels(
    attack: Attack, make_trial: MakeTrial, flips: float
) -> None:
    trial = make_trial(LinearTarget(flips), Ball(attack.ball.norm, WEAK[attack.ball.norm]), 300)

    returned = trial.hand_in(attack.run(trial, seeded()))

    assert trial.ball.contains(returned, trial.images).all()


@pytest.mark.parametrize("name", sorted({*BLACK_BOX} - {"null"}))
def test_every_image_is_hit_where_the_ball_is_large(name: str, make_trial: MakeTrial) -> None:
    attack = ATTACKS[name]()
    target = LinearTarget()
    trial = make_trial(target, Ball(attack.ball.norm, STRONG[attack.ball.norm]), 2000)

    returned = trial.hand_in(attack.run(trial, seeded()))

    assert (trial.first_hits > 0).all()
    assert (target.labels(returned) != trial.labels).all()


def test_finished_images_are_not_asked_about_again(attack: Attack, make_trial: MakeTrial) -> None:
    trial = make_trial(LinearTarget(0.3), Ball(attack.ball.norm, WEAK[attack.ball.norm]), 200, Stopping.HIT)

    attack.run(trial, seeded())

    hit = trial.first_hits > 0
    assert hit.any()
    assert (trial.oracle.spent[hit] < trial.oracle.budget).any()
    assert len(set(trial.oracle.target.batches)) > 1  # type: ignore[attr-defined]


def test_the_same_seed_gives_the_same_attack(attack: Attack, make_trial: MakeTrial) -> None:
    ball = Ball(attack.ball.norm, WEAK[attack.ball.norm])
    trials = [make_trial(LinearTarget(0.1), ball, 120) for _ in range(2)]

    first, second = (attack.run(trial, seeded()) for trial in trials)

    assert torch.equal(first, second)
    assert torch.equal(trials[0].oracle.spent, trials[1].oracle.spent)


def test_the_first_query_is_about_the_clean_image(attack: Attack, make_trial: MakeTrial, sample: Sample) -> None:
    trial = make_trial(LinearTarget(), attack.ball, 100)
    trial.labels = (trial.labels + 1) % 3

    attack.run(trial, seeded())

    assert trial.first_hits.tolist() == [1] * len(sample)
    assert trial.oracle.spent.tolist() == [1] * len(sample)
