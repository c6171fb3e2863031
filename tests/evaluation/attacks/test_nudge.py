"""Nudges find the draws of a sticky gateway that go wrong, one new image a query, and return the very image."""

import hashlib

import pytest
import torch
from torch import Tensor

from evaluation.attacks import Nudge, Null
from evaluation.ball import Ball
from evaluation.oracle import Oracle
from evaluation.trial import Stopping, Trial

LEVELS = 255
BALL = Ball("linf", 8 / LEVELS)
IMAGES = torch.tensor([0, 100, 128, LEVELS]).view(4, 1, 1, 1).expand(4, 3, 8, 8) / LEVELS
LABELS = torch.zeros(4, dtype=torch.int64)


class StickyTarget:
    """Says 1 instead of 0 about one image of so many, always the same ones: by a hash of its bytes."""

    levels: int | None = LEVELS
    coarse = False
    deterministic = True

    def __init__(self, one_of: int) -> None:
        self.one_of = one_of
        self.seen: list[Tensor] = []

    def labels(self, images: Tensor) -> Tensor:
        levels = (images * LEVELS).round().to(torch.uint8)
        self.seen += list(levels)
        digests = [hashlib.sha256(one.numpy().tobytes()).digest() for one in levels]
        return torch.tensor([int(int.from_bytes(digest) % self.one_of == 0) for digest in digests])

    def scores(self, images: Tensor) -> Tensor:
        raise NotImplementedError


def attacked(attack: Nudge | Null, target: StickyTarget, budget: int, stopping: Stopping) -> tuple[Trial, Tensor]:
    trial = Trial(Oracle(target, len(IMAGES), budget), IMAGES, LABELS, BALL, stopping)
    incumbents = attack.run(trial, torch.Generator().manual_seed(0))
    return trial, trial.hand_in(incumbents)


def test_what_asking_again_never_finds_is_found_a_level_away_and_stays_wrong() -> None:
    target = StickyTarget(one_of=20)
    again, _ = attacked(Null(), target, 150, Stopping.CONFIRMED)
    trial, returned = attacked(Nudge(), target, 150, Stopping.CONFIRMED)

    assert not again.first_hits.any()
    assert trial.first_hits.all()
    assert target.labels(returned).tolist() == [1] * len(IMAGES)
    assert trial.finished.all()


@pytest.mark.parametrize("budget", [1, 2, 150, 1000])
def test_every_query_is_about_another_image_a_level_from_the_clean_one(budget: int) -> None:
    target = StickyTarget(one_of=2**250)
    trial, returned = attacked(Nudge(), target, budget, Stopping.CONFIRMED)

    numbers = IMAGES[0].numel()
    assert trial.oracle.spent.tolist() == [min(budget, 1 + numbers)] * len(IMAGES)
    assert len({one.numpy().tobytes() for one in target.seen}) == len(target.seen)
    clean = (IMAGES * LEVELS).round().int()
    changes = torch.stack(target.seen).int().view(-1, *IMAGES.shape) - clean
    assert changes[0].eq(0).all()
    assert changes[1:].abs().flatten(2).sum(2).eq(1).all()
    torch.testing.assert_close(returned, IMAGES)
