"""HopSkipJump where the target rounds to 8 bits, and its least probe."""

import pytest
import torch
from torch import Tensor

from evaluation.attacks import HopSkipJump
from evaluation.ball import Ball, Norm
from evaluation.trial import Stopping
from tests.evaluation.conftest import SIDE, LinearTarget, MakeTrial

PIXELS = 3 * SIDE * SIDE


class RoundingTarget(LinearTarget):
    """Sees whole levels of 8 bits, and keeps what it has answered."""

    levels = 255

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Tensor] = []

    def scores(self, images: Tensor) -> Tensor:
        scores = super().scores(torch.round(images * 255) / 255)
        self.answers.append(scores.argmax(1))
        return scores


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_probes_of_a_rounding_target_get_differing_answers(make_trial: MakeTrial, norm: Norm) -> None:
    target = RoundingTarget()
    trial = make_trial(target, Ball(norm, 1e-4), 1000, Stopping.BUDGET)

    HopSkipJump().run(trial, torch.Generator().manual_seed(3))

    estimates = [answers.view(12, -1) for answers in target.answers if len(answers) in (12 * 141, 12 * 173)]
    assert len(estimates) == 2
    for answers in estimates:
        assert int((answers != answers[:, :1]).any(1).sum()) >= 10


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
