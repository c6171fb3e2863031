"""On a sticky gateway an image draws anew a level away, and what is misread stays so."""

import hashlib

import pytest
import torch
from torch import Tensor

from evaluation.attacks import Null
from evaluation.attacks.send import send
from evaluation.ball import Ball
from evaluation.oracle import Oracle
from evaluation.trial import Stopping, Trial

LEVELS = 255
BALL = Ball("linf", 8 / LEVELS)
IMAGES = torch.tensor([0, 100, 128, LEVELS]).view(4, 1, 1, 1).expand(4, 3, 8, 8) / LEVELS
LABELS = torch.zeros(4, dtype=torch.int64)
NEVER = 2**250


class HashedTarget:
    """Says 1 instead of 0 about one image of so many, always the same ones: by a hash of its bytes."""

    levels: int | None = LEVELS
    coarse = False
    deterministic = True

    def __init__(self, one_of: int, *, sticky: bool = True) -> None:
        self.one_of = one_of
        self.sticky = sticky
        self.seen: list[Tensor] = []

    def labels(self, images: Tensor) -> Tensor:
        levels = (images * LEVELS).round().to(torch.uint8)
        self.seen += list(levels)
        digests = [hashlib.sha256(one.numpy().tobytes()).digest() for one in levels]
        return torch.tensor([int(int.from_bytes(digest) % self.one_of == 0) for digest in digests])

    def scores(self, images: Tensor) -> Tensor:
        raise NotImplementedError


def trial(target: HashedTarget, budget: int) -> Trial:
    return Trial(Oracle(target, len(IMAGES), budget), IMAGES, LABELS, BALL, Stopping.CONFIRMED)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def changes(target: HashedTarget, images: Tensor) -> Tensor:
    """In levels, what each query about each image changed: `(queries, N, 3, H, W)`."""
    return torch.stack(target.seen).int().view(-1, *images.shape) - (images * LEVELS).round().int()


def test_sticky_draws_alone_lose_images_which_asking_again_does_not_tell() -> None:
    target, other = HashedTarget(20), HashedTarget(20, sticky=False)
    sticky, same = trial(target, 150), trial(other, 150)

    returned = sticky.hand_in(Null().run(sticky, seeded()))
    Null().run(same, seeded())

    assert sticky.first_hits.all()
    assert sticky.finished.all()
    assert target.labels(returned).tolist() == [1] * len(IMAGES)
    assert same.oracle.spent.tolist() == [1] * len(IMAGES)
    assert not same.first_hits.any()


@pytest.mark.parametrize("budget", [1, 2, 150, 1000])
def test_every_query_is_about_another_image_a_level_away(budget: int) -> None:
    target = HashedTarget(NEVER)
    one = trial(target, budget)
    returned = one.hand_in(Null().run(one, seeded()))

    assert one.oracle.spent.tolist() == [min(budget, 1 + IMAGES[0].numel())] * len(IMAGES)
    assert len({image.numpy().tobytes() for image in target.seen}) == len(target.seen)
    moved = changes(target, IMAGES)
    assert moved[0].eq(0).all()
    assert moved[1:].abs().flatten(2).sum(2).eq(1).all()
    torch.testing.assert_close(returned, IMAGES)


def test_an_image_at_the_edge_of_the_ball_is_sent_a_level_nearer() -> None:
    target = HashedTarget(NEVER)
    one = trial(target, 1000)
    edge = BALL.project(IMAGES + BALL.epsilon * torch.tensor([1, -1, 1, -1]).view(4, 1, 1, 1), IMAGES)
    send(one, one.active(), edge, seeded())

    sent = torch.stack(target.seen).view(-1, *IMAGES.shape) / LEVELS
    assert BALL.contains(sent, IMAGES).all()
    assert changes(target, edge)[1:].abs().flatten(2).sum(2).eq(1).all()
