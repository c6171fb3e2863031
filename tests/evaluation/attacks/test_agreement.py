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
from evaluation.oracle import Oracle
from evaluation.trial import Stopping, Trial

SIDE, CLASSES, IMAGES = 8, 4, 100
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
    coarse = False
    sticky = False

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


def attacked(
    attack: Attack, ball: Ball, queries: int, images: Tensor, labels: Tensor, seed: int = 3
) -> tuple[Trial, Tensor]:
    trial = Trial(Oracle(NetworkTarget(), len(images), queries), images, labels, ball, Stopping.HIT)
    return trial, attack.run(trial, torch.Generator().manual_seed(seed))


def share(hit: Tensor) -> float:
    """Of the images; none and all of them would say nothing."""
    assert 0 < int(hit.sum()) < len(hit)
    return float(hit.double().mean())


def toolbox_classifier(network: Network) -> "object":
    from art.estimators.classification import PyTorchClassifier  # noqa: PLC0415

    shape = (3, SIDE, SIDE)
    return PyTorchClassifier(network, nn.CrossEntropyLoss(), shape, CLASSES, clip_values=(0.0, 1.0), device_type="cpu")


def test_square_hits_as_often_as_the_toolboxs_after_as_many_iterations(images: Tensor, labels: Tensor) -> None:
    """Over many seeds: the toolbox moves one square for all images of a batch, so that one run says little."""
    from art.attacks.evasion import SquareAttack  # noqa: PLC0415

    ball, classifier = Ball("linf", 0.02), toolbox_classifier(Network())
    for iterations in (4, 20, 80):
        other = SquareAttack(classifier, eps=ball.epsilon, max_iter=iterations, p_init=0.3, verbose=False)
        ours, theirs = [], []
        for seed in range(8):
            np.random.seed(seed)
            found = torch.from_numpy(other.generate(images.numpy(), labels.numpy()))
            theirs.append(share(Network()(found).argmax(1) != labels))
            trial, _ = attacked(Square(p=0.3), ball, iterations + 2, images, labels, seed)
            ours.append(share(trial.first_hits > 0))
        assert np.mean(ours) > np.mean(theirs) - 0.02


def test_simba_hits_as_often_as_the_toolboxs_after_as_many_queries(images: Tensor, labels: Tensor) -> None:
    from art.attacks.evasion import SimBA as ToolboxSimBA  # noqa: PLC0415

    network = Network()
    other = ToolboxSimBA(
        toolbox_softmax(network), attack="px", max_iter=100, order="random", epsilon=0.2, verbose=False
    )
    np.random.seed(0)
    needed = []
    for image, label in zip(images.numpy(), labels.numpy(), strict=True):
        network.seen = 0
        other.generate(image[None], np.eye(CLASSES, dtype=np.float32)[label][None])
        needed.append(network.seen)

    for queries in (4, 8, 16):
        trials = [attacked(SimBA(), Ball("l2", 1000), queries, images, labels, seed)[0] for seed in range(4)]
        assert np.mean([share(one.first_hits > 0) for one in trials]) >= share(torch.tensor(needed) <= queries)


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

    estimate, _ = NES()._estimate(trial, rows, images, 100, torch.Generator().manual_seed(4))

    leaf = images.clone().requires_grad_()
    (true,) = torch.autograd.grad(margin(NetworkTarget().scores(leaf)[:, None], labels).sum(), leaf)
    cosine = torch.cosine_similarity(estimate.flatten(1), true.flatten(1))
    assert float(cosine.mean()) == pytest.approx((50 / (50 + SIZE)) ** 0.5, abs=0.05)


def test_nes_hits_what_descent_along_the_true_gradient_hits(images: Tensor, labels: Tensor) -> None:
    ball, attack = Ball("linf", 0.012), NES(points=1000)
    current, course, hit = images, torch.zeros_like(images), torch.zeros(IMAGES, dtype=torch.bool)
    for steps in (1, 2, 3):
        leaf = current.clone().requires_grad_()
        (true,) = torch.autograd.grad(margin(NetworkTarget().scores(leaf)[:, None], labels).sum(), leaf)
        course = attack.momentum * course + true
        current = ball.project(current - attack.step * course.sign(), images)
        hit |= Network()(current).argmax(1) != labels

        trial, _ = attacked(attack, ball, 1 + (attack.points + 1) * steps, images, labels)

        assert share(trial.first_hits > 0) > share(hit) - 0.06


def test_the_running_mean_of_nes_makes_much_of_few_points(images: Tensor, labels: Tensor) -> None:
    plain, running = (
        attacked(NES(points=4, step=0.002, momentum=momentum), Ball("linf", 0.02), 1 + 5 * 24, images, labels)[0]
        for momentum in (0, 0.9)
    )
    assert share(running.first_hits > 0) > share(plain.first_hits > 0) + 0.1
