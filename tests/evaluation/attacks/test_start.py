"""Where attacks on labels start, when uniform noise is read as one class."""

import pytest
import torch
from torch import Tensor

from evaluation.attacks import Attack, Boundary, HopSkipJump, PopSkipJump
from evaluation.attacks.start import NOISES, misread_starts
from evaluation.ball import Ball
from evaluation.oracle import Oracle
from evaluation.trial import Stopping, Trial
from tests.evaluation.conftest import SIDE, LinearTarget, MakeTrial

GRAY, DARK, LIGHT = range(3)
NEAR = 3.0
"""The nearest image that is not read as gray is 2.1 away from the middle one; uniform noise is 4."""
ON_LABELS = (Boundary(), HopSkipJump(), PopSkipJump())


class BrightnessTarget:
    """Reads an image by its mean: all uniform noise is gray."""

    levels: int | None = None
    coarse = False
    sticky = False
    deterministic = True

    def labels(self, images: Tensor) -> Tensor:
        means = images.flatten(1).mean(1)
        return torch.where(means < 0.35, DARK, torch.where(means > 0.65, LIGHT, GRAY))

    def scores(self, images: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(self.labels(images), 3).float()


class StubbornTarget(BrightnessTarget):
    """Reads everything as gray."""

    def labels(self, images: Tensor) -> Tensor:
        return torch.full((len(images),), GRAY)


def trial_of(target: BrightnessTarget, means: list[float], budget: int = 300) -> Trial:
    images = torch.tensor(means)[:, None, None, None].expand(-1, 3, SIDE, SIDE).clone()
    return Trial(Oracle(target, len(means), budget), images, target.labels(images), Ball("l2", 1.0), Stopping.BUDGET)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_an_image_that_is_read_as_uniform_noise_is_starts_from_an_image_of_another_label() -> None:
    trial = trial_of(BrightnessTarget(), [0.5, 0.52, 0.1, 0.9])

    rows, starts = misread_starts(trial, 100, seeded())

    assert rows.tolist() == [0, 1, 2, 3]
    assert trial.oracle.spent.tolist() == [2 + NOISES, 2 + NOISES, 2, 2]
    for start in starts[:2]:
        assert any(torch.equal(start, other) for other in trial.images[2:])


@pytest.mark.parametrize("means", [[0.5], [0.5, 0.52, 0.48]])
def test_without_other_labels_it_starts_from_coarse_noise(means: list[float]) -> None:
    trial = trial_of(BrightnessTarget(), means)

    rows, starts = misread_starts(trial, 100, seeded())

    assert rows.tolist() == list(range(len(means)))
    assert (BrightnessTarget().labels(starts) != trial.labels).all()
    assert (trial.oracle.spent > 1 + NOISES).all()
    assert (trial.oracle.spent <= 101).all()


@pytest.mark.parametrize("attack", ON_LABELS, ids=lambda attack: attack.kind)
def test_attacks_go_on_from_such_starts(attack: Attack) -> None:
    trial = trial_of(BrightnessTarget(), [0.5, 0.52, 0.1, 0.9])

    found = attack.run(trial, seeded())

    distance = trial.ball.distance(found, trial.images)[:2]
    assert (distance < NEAR).all()
    if isinstance(attack, PopSkipJump):  # which ends where half of the answers would be wrong
        assert (distance > 2).all()
    else:
        assert (BrightnessTarget().labels(found) != trial.labels)[:2].all()
    assert (trial.oracle.spent > 250).all()


@pytest.mark.parametrize("attack", ON_LABELS, ids=lambda attack: attack.kind)
def test_an_image_without_a_start_ends_as_it_was(attack: Attack) -> None:
    trial = trial_of(StubbornTarget(), [0.5, 0.2])

    returned = trial.hand_in(attack.run(trial, seeded()))

    assert torch.equal(returned, trial.images)
    assert trial.oracle.spent.tolist() == [101, 101]


def test_attempts_bound_the_looks() -> None:
    trial = trial_of(StubbornTarget(), [0.5, 0.2])

    rows, _ = misread_starts(trial, NOISES + 3, seeded())

    assert len(rows) == 0
    assert trial.oracle.spent.tolist() == [NOISES + 4] * 2


def test_starts_of_a_random_target_are_truly_misread(make_trial: MakeTrial) -> None:
    trial = make_trial(LinearTarget(0.1), Ball("l2", 0.01), 300, Stopping.BUDGET)

    rows, starts = misread_starts(trial, 100, seeded())

    assert len(rows) == len(trial.images)
    assert (LinearTarget().labels(starts) != trial.labels).sum() >= 11
