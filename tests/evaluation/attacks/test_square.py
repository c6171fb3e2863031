"""Square: its schedule, its squares, and that a lucky draw does not freeze it."""

import pytest
import torch
from torch import Tensor

from evaluation.attacks import Square
from evaluation.ball import Ball
from evaluation.errors import EvaluationError
from evaluation.images import Sample
from evaluation.oracle import Oracle
from evaluation.trial import Stopping, Trial
from tests.evaluation.conftest import LinearTarget, MakeTrial

BALL = Ball("linf", 8 / 255)


class LuckyTarget(LinearTarget):
    """Answers the second query about each image with a margin far below any true one, but still rightly."""

    def __init__(self, sample: Sample) -> None:
        super().__init__()
        self.deterministic = False
        self.labels_of_images = sample.labels
        self.calls = 0

    def scores(self, images: Tensor) -> Tensor:
        scores = super().scores(images)
        self.calls += 1
        if self.calls == 2:
            barely = torch.full_like(scores, 0.33)
            barely.scatter_(1, self.labels_of_images[:, None], 0.34)
            return barely
        return scores


def improved(square: Square, sample: Sample) -> int:
    """How many images ended with a smaller true margin than the stripes had, after a lucky second draw."""
    target = LuckyTarget(sample)
    trial = Trial(Oracle(target, len(sample), 200), sample.images, sample.labels, Ball("linf", 0.01), Stopping.BUDGET)
    square.run(trial, torch.Generator().manual_seed(1))
    return int((trial.first_hits > 0).sum())


def test_the_published_rule_is_frozen_by_a_lucky_draw_and_ours_is_not(sample: Sample) -> None:
    stuck = improved(Square(refresh=0), sample)
    free = improved(Square(refresh=4), sample)

    assert stuck < free


def test_nothing_is_asked_twice_on_a_deterministic_target(make_trial: MakeTrial) -> None:
    measured = make_trial(LinearTarget(), Ball("linf", 0.01), 100)
    stored = make_trial(LinearTarget(), Ball("linf", 0.01), 100)

    first = Square(refresh=4).run(measured, torch.Generator().manual_seed(1))
    second = Square(refresh=0).run(stored, torch.Generator().manual_seed(1))

    assert torch.equal(first, second)
    assert torch.equal(measured.first_hits, stored.first_hits)


@pytest.mark.parametrize(("iteration", "side"), [(0, 7), (11, 5), (51, 4), (201, 3), (501, 2), (8001, 1)])
def test_the_published_schedule(make_trial: MakeTrial, iteration: int, side: int) -> None:
    trial = make_trial(LinearTarget(), BALL, 10)
    trial.images = torch.zeros(1, 3, 32, 32)

    assert Square(p=0.05).side(trial, iteration, 500) == side, "whatever the budget"


def test_a_rescaled_schedule_ends_with_the_budget(make_trial: MakeTrial) -> None:
    trial = make_trial(LinearTarget(), BALL, 10)
    trial.images = torch.zeros(1, 3, 32, 32)
    square = Square(p=0.8, rescaled=True)

    assert square.side(trial, 0, 100) == 29
    assert square.side(trial, 99, 100) == Square(p=0.8).side(trial, 9900, 100)


def test_every_pixel_is_the_clean_one_plus_or_minus_epsilon(make_trial: MakeTrial) -> None:
    trial = make_trial(LinearTarget(), Ball("linf", 0.004), 60)

    moved = Square().run(trial, torch.Generator().manual_seed(1)) - trial.images

    torch.testing.assert_close(moved.abs(), torch.full_like(moved, 0.004), atol=1e-6, rtol=0)


def test_no_query_is_spent_on_an_image_that_is_the_incumbent_still(make_trial: MakeTrial) -> None:
    """With squares of one pixel one coloring of eight would be that."""
    trial = make_trial(LinearTarget(), Ball("linf", 0.004), 10)
    rows, generator, best = torch.arange(12), torch.Generator().manual_seed(1), trial.images
    for _ in range(20):
        moved = Square()._move(trial, rows, best, 1, generator)
        changed = (moved != best).any(1).flatten(1).sum(1)
        assert changed.tolist() == [1] * 12
        best = moved


def test_averaging_costs_its_samples(make_trial: MakeTrial) -> None:
    trial = make_trial(LinearTarget(0.001), Ball("linf", 0.001), 51, Stopping.BUDGET)

    Square(samples=5).run(trial, torch.Generator().manual_seed(1))

    assert trial.oracle.spent.tolist() == [51] * 12


def test_it_is_an_attack_of_the_l_infinity_ball(make_trial: MakeTrial) -> None:
    with pytest.raises(EvaluationError, match="l-infinity"):
        Square().run(make_trial(LinearTarget(), Ball("l2", 1), 9), torch.Generator())
