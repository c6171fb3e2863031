"""Each attack agrees with an independent implementation on a deterministic network, query for query.

The boundary attack is held against Foolbox; Square, SimBA and HopSkipJump against the Adversarial Robustness Toolbox
(Foolbox's HopSkipJump takes one l2 norm over its whole batch). NES is in neither: it is held against what is published
of it, that antithetic points estimate the gradient, and against descent along the true one.
"""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evaluation.attacks import NES, Attack, Boundary, HopSkipJump, SimBA, Square
from evaluation.ball import Ball, Norm
from evaluation.criteria import margin
from evaluation.intervals import wilson
from evaluation.oracle import Oracle
from evaluation.trial import Stopping, Trial

SIDE, CLASSES, IMAGES = 8, 4, 40
SIZE = 3 * SIDE * SIDE


class Network(nn.Module):
    """A random network with one bend, which counts the images that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first = nn.Parameter(torch.randn(SIZE, 24, generator=generator) / SIZE**0.5 * 8, requires_grad=False)
        self.second = nn.Parameter(torch.randn(24, CLASSES, generator=generator) / 24**0.5 * 4, requires_grad=False)
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        logits: Tensor = torch.tanh((images.float().flatten(1) - 0.5) @ self.first) @ self.second
        return logits


class NetworkTarget:
    deterministic = True
    levels: int | None = None

    def __init__(self) -> None:
        self.network = Network()

    def scores(self, images: Tensor) -> Tensor:
        scores: Tensor = torch.softmax(self.network(images), 1)
        return scores

    def labels(self, images: Tensor) -> Tensor:
        return self.scores(images).argmax(1)


@pytest.fixture(autouse=True)
def _foreign_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def images() -> Tensor:
    return 0.5 + 0.3 * (torch.rand(IMAGES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2)) - 0.5)


@pytest.fixture(scope="module")
def labels(images: Tensor) -> Tensor:
    return NetworkTarget().labels(images)


def attacked(attack: Attack, ball: Ball, queries: int, images: Tensor, labels: Tensor) -> tuple[Trial, Tensor]:
    trial = Trial(Oracle(NetworkTarget(), len(images), queries), images, labels, ball, Stopping.HIT)
    return trial, attack.run(trial, torch.Generator().manual_seed(3))


def assert_same_share(ours: Tensor, theirs: Tensor) -> None:
    """The 95 % intervals of two shares of the same images meet, and both shares say something."""
    (low, high), (other_low, other_high) = (wilson(int(one.sum()), len(one)) for one in (ours, theirs))
    assert low <= other_high
    assert other_low <= high
    assert 0 < int(ours.sum()) < len(ours)


def toolbox_classifier(network: Network) -> "object":
    from art.estimators.classification import PyTorchClassifier  # noqa: PLC0415

    shape = (3, SIDE, SIDE)
    return PyTorchClassifier(network, nn.CrossEntropyLoss(), shape, CLASSES, clip_values=(0.0, 1.0), device_type="cpu")


@pytest.mark.parametrize("iterations", [15, 60])
def test_square_hits_as_often_as_the_toolboxs_after_as_many_iterations(
    images: Tensor, labels: Tensor, iterations: int
) -> None:
    from art.attacks.evasion import SquareAttack  # noqa: PLC0415

    ball = Ball("linf", 0.02)
    np.random.seed(0)
    other = SquareAttack(
        toolbox_classifier(Network()), eps=ball.epsilon, max_iter=iterations, p_init=0.3, verbose=False
    )
    theirs = torch.from_numpy(other.generate(images.numpy(), labels.numpy()))

    trial, _ = attacked(Square(p=0.3), ball, iterations + 2, images, labels)

    assert_same_share(trial.first_hits > 0, Network()(theirs).argmax(1) != labels)


@pytest.mark.parametrize("queries", [6, 15])
def test_simba_hits_as_often_as_the_toolboxs_after_as_many_queries(
    images: Tensor, labels: Tensor, queries: int
) -> None:
    from art.attacks.evasion import SimBA as ToolboxSimBA  # noqa: PLC0415

    network = Network()
    other = ToolboxSimBA(toolbox_softmax(network), attack="px", max_iter=100, order="random", epsilon=0.2)
    np.random.seed(0)
    needed = []
    for image, label in zip(images.numpy(), labels.numpy(), strict=True):
        network.seen = 0
        other.generate(image[None], np.eye(CLASSES, dtype=np.float32)[label][None])
        needed.append(network.seen)

    trial, _ = attacked(SimBA(), Ball("l2", 1000), queries, images, labels)

    assert_same_share(trial.first_hits > 0, torch.tensor(needed) <= queries)


def toolbox_softmax(network: Network) -> "object":
    """The toolbox's SimBA wants probabilities."""

    class Softmax(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return torch.softmax(network(pixels), 1)

    return toolbox_classifier(Softmax())  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_hopskipjump_comes_at_least_as_near_as_the_toolboxs_with_as_many_queries(
    images: Tensor, labels: Tensor, norm: Norm
) -> None:
    from art.attacks.evasion import HopSkipJump as ToolboxHopSkipJump  # noqa: PLC0415

    network, few, their_norm = Network(), images[:20], np.inf if norm == "linf" else 2
    other = ToolboxHopSkipJump(
        toolbox_classifier(network), norm=their_norm, max_iter=4, init_eval=100, init_size=100, verbose=False
    )
    np.random.seed(0)
    theirs = torch.from_numpy(other.generate(few.numpy(), labels[:20].numpy()))
    queries = network.seen // len(few)

    trial, ours = attacked(HopSkipJump(), Ball(norm, 1e-4), queries, few, labels[:20])

    near, other_near = (float(trial.ball.distance(one, few).median()) for one in (ours, theirs))
    assert near <= 1.1 * other_near
    assert (network(ours).argmax(1) != labels[:20]).all()


def test_the_boundary_attack_comes_as_near_as_foolboxs_with_as_many_queries(images: Tensor, labels: Tensor) -> None:
    from foolbox.attacks.boundary_attack import BoundaryAttack  # noqa: PLC0415
    from foolbox.models.pytorch import PyTorchModel  # noqa: PLC0415

    network = Network()
    model = PyTorchModel(network.eval(), bounds=(0, 1), device="cpu")
    other = BoundaryAttack(steps=500)
    torch.manual_seed(0)
    np.random.seed(0)
    network.seen = 0
    (theirs,), _, _ = other(model, images, labels, epsilons=[None])
    queries = network.seen // len(images)

    trial, ours = attacked(Boundary(), Ball("l2", 1e-4), queries, images, labels)

    near, other_near = (float(trial.ball.distance(one, images).median()) for one in (ours, theirs))
    assert near <= 1.25 * other_near
    assert (network(ours).argmax(1) != labels).all()


def test_nes_follows_the_gradient_as_nearly_as_its_points_allow(images: Tensor, labels: Tensor) -> None:
    trial = Trial(Oracle(NetworkTarget(), IMAGES, 100), images, labels, Ball("linf", 1), Stopping.BUDGET)
    rows = trial.active()

    estimate = NES()._gradient(trial, rows, images, 100, torch.Generator().manual_seed(4))

    leaf = images.clone().requires_grad_()
    (true,) = torch.autograd.grad(margin(NetworkTarget().scores(leaf)[:, None], labels).sum(), leaf)
    cosine = torch.cosine_similarity(estimate.flatten(1), true.flatten(1))
    assert float(cosine.mean()) == pytest.approx((50 / (50 + SIZE)) ** 0.5, abs=0.05)


def test_nes_hits_what_descent_along_the_true_gradient_hits(images: Tensor, labels: Tensor) -> None:
    ball, steps = Ball("linf", 0.015), 3
    current = images
    for _ in range(steps):
        leaf = current.clone().requires_grad_()
        (true,) = torch.autograd.grad(margin(NetworkTarget().scores(leaf)[:, None], labels).sum(), leaf)
        current = ball.project(current - 0.01 * true.sign(), images)

    trial, _ = attacked(NES(points=400), ball, 1 + 401 * steps, images, labels)

    assert_same_share(trial.first_hits > 0, Network()(current).argmax(1) != labels)
