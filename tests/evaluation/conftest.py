"""Small targets that answer at once: a linear classifier, and one that a share of the time says anything."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from evaluation.ball import Ball
from evaluation.images import Sample
from evaluation.oracle import Oracle
from evaluation.trial import Stopping, Trial

SIDE = 8
CLASSES = 3


class LinearTarget:
    """Logits are weighted sums of the pixels; it counts what it is asked.

    Args:
        flips: the share of answers that name another class than the best.
    """

    levels: int | None = None
    coarse = False
    sticky = False

    def __init__(self, flips: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(7)
        self.weights = torch.randn(CLASSES, 3 * SIDE * SIDE, generator=generator)
        self.flips = flips
        self.generator = torch.Generator().manual_seed(8)
        self.deterministic = flips == 0
        self.asked = 0
        self.batches: list[int] = []

    def scores(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        self.batches.append(len(images))
        scores = torch.softmax((images.flatten(1) - 0.5) @ self.weights.T, 1)
        flipped = torch.rand(len(images), generator=self.generator) < self.flips
        return torch.where(flipped[:, None], scores.roll(1, dims=1), scores)

    def labels(self, images: Tensor) -> Tensor:
        return self.scores(images).argmax(1)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def sample() -> Sample:
    """Twelve images near the middle gray, which the linear target reads rightly by definition."""
    generator = torch.Generator().manual_seed(9)
    images = 0.5 + 0.1 * (torch.rand(12, 3, SIDE, SIDE, generator=generator) - 0.5)
    return Sample(images, LinearTarget().labels(images), tuple(range(12)))


@pytest.fixture
def make_target() -> type[LinearTarget]:
    return LinearTarget


class MakeTrial:
    """Makes trials of the sample."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample

    def __call__(self, target: LinearTarget, ball: Ball, budget: int, stopping: Stopping = Stopping.CONFIRMED) -> Trial:
        oracle = Oracle(target, len(self.sample), budget)
        return Trial(oracle, self.sample.images, self.sample.labels, ball, stopping)


@pytest.fixture
def make_trial(sample: Sample) -> MakeTrial:
    return MakeTrial(sample)
