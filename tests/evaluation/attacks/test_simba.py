"""SimBA: both ways of a direction, no direction twice in a round, and the ball."""

import pytest
import torch

from evaluation.attacks import SimBA
from evaluation.ball import Ball
from evaluation.images import Sample
from evaluation.oracle import Oracle
from evaluation.trial import Stopping, Trial
from tests.evaluation.conftest import CLASSES, SIDE, LinearTarget, MakeTrial


@pytest.fixture
def changes(sample: Sample) -> torch.Tensor:
    """Of each channel of each pixel, in a ball without an end, before any image is hit."""
    target = LinearTarget()
    target.weights = target.weights[:CLASSES] / 100  # far from the boundary for all of the budget
    trial = Trial(Oracle(target, len(sample), 80), sample.images, sample.labels, Ball("l2", 1000), Stopping.BUDGET)
    return (SimBA(step=0.2).run(trial, torch.Generator().manual_seed(1)) - sample.images).flatten(1)


def test_a_direction_is_tried_up_and_then_down(changes: torch.Tensor) -> None:
    moved = changes[changes.abs() > 1e-6]

    torch.testing.assert_close(moved.abs(), torch.full_like(moved, 0.2))
    assert 0.3 < float((moved > 0).float().mean()) < 0.7


def test_each_channel_of_a_pixel_is_tried_once_a_round_so_every_second_query_or_more_moves_one(
    changes: torch.Tensor,
) -> None:
    moved = (changes.abs() > 1e-6).sum(1)

    assert changes.shape[1] == 3 * SIDE * SIDE
    assert (moved >= 39).all()
    assert (moved <= 79).all()


def test_a_channel_that_is_as_dark_as_can_be_is_not_asked_about_twice() -> None:
    """Half of the directions of the first two lead out of [0, 1]; only a try that changes something is a query."""
    images = torch.tensor([0.0, 1.0, 0.5])[:, None, None, None].expand(-1, 3, SIDE, SIDE)
    target = LinearTarget()
    trial = Trial(Oracle(target, 3, 100), images, target.labels(images), Ball("l2", 1000), Stopping.BUDGET)
    seen: list[torch.Tensor] = []
    answer = target.scores

    def remember(candidates: torch.Tensor) -> torch.Tensor:
        seen.extend(candidates)
        return answer(candidates)

    target.scores = remember  # type: ignore[method-assign, assignment]
    SimBA(step=0.2).run(trial, torch.Generator().manual_seed(1))

    assert trial.oracle.spent.tolist() == [100] * 3
    assert len(seen) == 300
    assert len({one.numpy().tobytes() for one in seen}) == 300


@pytest.mark.parametrize(("flips", "refresh"), [(0.0, 4), (0.1, 0)])
def test_where_no_direction_changes_anything_it_ends(
    make_trial: MakeTrial, sample: Sample, flips: float, refresh: int
) -> None:
    trial = make_trial(LinearTarget(flips), Ball("l2", 0), 100, Stopping.BUDGET)

    found = SimBA(refresh=refresh).run(trial, torch.Generator().manual_seed(1))

    assert torch.equal(found, sample.images)
    assert trial.oracle.spent.tolist() == [1] * len(sample)
