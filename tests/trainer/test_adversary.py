"""Attacks climb the loss, stay in their ball and on the 8-bit grid, and perturb as an independent library does."""

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from trainer.adversary import Attack, AttackDraw, onto_levels

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of scipy, in Foolbox's own imports
    from foolbox.attacks.basic_iterative_method import LinfBasicIterativeAttack
    from foolbox.attacks.fast_gradient_method import LinfFastGradientAttack
    from foolbox.attacks.gradient_descent_base import LinfBaseGradientDescent
    from foolbox.attacks.projected_gradient_descent import LinfProjectedGradientDescentAttack
    from foolbox.criteria import Misclassification
    from foolbox.models.pytorch import PyTorchModel

SHAPE = (3, 6, 6)
ATTACKS: dict[str, dict[str, Any]] = {
    "fgsm": {"kind": "fgsm"},
    "bim": {"kind": "bim", "steps": (4, 4), "step_size": (0.4, 0.4)},
    "pgd": {"kind": "pgd", "steps": (4, 4), "step_size": (0.4, 0.4)},
}
each_attack = pytest.mark.parametrize("kind", ATTACKS)


class CountingNetwork(nn.Module):
    """A linear classifier that knows how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 4))
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.layers(images)
        return logits


@pytest.fixture
def network() -> CountingNetwork:
    return CountingNetwork()


@pytest.fixture
def images() -> Tensor:
    """8-bit pixels, black and white ones among them."""
    pixels = torch.randint(256, (16, *SHAPE))
    pixels[:, :, 0] = 0
    pixels[:, :, 1] = 255
    return pixels / 255


@pytest.fixture
def labels() -> Tensor:
    return torch.arange(16) % 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attack(kind: str, low: float, high: float) -> Attack:
    return Attack(epsilon=(low, high), **ATTACKS[kind])


def perturb(strength: Attack, network: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
    return strength.draw(images.shape, seeded(seed)).perturb(network, images, labels)


@each_attack
@settings(deadline=None, max_examples=25)
@given(epsilon=st.integers(1, 64), span=st.integers(0, 16), seed=st.integers(0, 2**32 - 1))
def test_adversarial_images_stay_in_the_ball_and_in_range(kind: str, epsilon: int, span: int, seed: int) -> None:
    images = torch.randint(256, (4, *SHAPE), generator=seeded(seed)) / 255

    adversarial = perturb(attack(kind, epsilon, epsilon + span), CountingNetwork(), images, torch.arange(4), seed)

    assert adversarial.shape == images.shape
    assert adversarial.dtype == torch.float32
    assert float((adversarial - images).abs().amax()) <= (epsilon + span + 1e-3) / 255
    assert 0 <= float(adversarial.amin()) <= float(adversarial.amax()) <= 1


@each_attack
def test_adversarial_images_lie_on_the_8_bit_grid(
    network: CountingNetwork, images: Tensor, labels: Tensor, kind: str
) -> None:
    pixels = 255 * perturb(attack(kind, 3, 9), network, images, labels)

    torch.testing.assert_close(pixels, pixels.round(), atol=1e-4, rtol=0)


@each_attack
def test_an_attack_raises_the_loss_of_every_image(
    network: CountingNetwork, images: Tensor, labels: Tensor, kind: str
) -> None:
    adversarial = perturb(attack(kind, 8, 8), network, images, labels)

    with torch.inference_mode():
        before = functional.cross_entropy(network(images), labels, reduction="none")
        after = functional.cross_entropy(network(adversarial), labels, reduction="none")
    assert bool((after > before).all())


def test_fgsm_is_one_full_step_along_the_sign_of_the_gradient(
    network: CountingNetwork, images: Tensor, labels: Tensor
) -> None:
    adversarial = perturb(attack("fgsm", 8, 8), network, images, labels)

    assert network.calls == 1
    variable = images.clone().requires_grad_()
    functional.cross_entropy(network(variable), labels).backward()  # type: ignore[no-untyped-call]
    assert variable.grad is not None
    torch.testing.assert_close(adversarial, (images + variable.grad.sign() * 8 / 255).clamp(0, 1))


def test_bim_starts_at_the_image(network: CountingNetwork, images: Tensor, labels: Tensor) -> None:
    one_step = Attack(kind="bim", epsilon=(8, 8), step_size=(0.25, 0.25))

    moved = 255 * (perturb(one_step, network, images, labels) - images).abs()

    assert float(moved.amax()) == pytest.approx(2, abs=1e-3)


def test_pgd_starts_anywhere_in_the_ball(network: CountingNetwork, images: Tensor, labels: Tensor) -> None:
    one_step = Attack(kind="pgd", epsilon=(8, 8), step_size=(0.25, 0.25))

    moved = 255 * (perturb(one_step, network, images, labels) - images)

    assert set(moved.round().flatten().tolist()) == set(range(-8, 9))


def test_several_steps_go_further_than_one(network: CountingNetwork, images: Tensor, labels: Tensor) -> None:
    steps = Attack(kind="bim", epsilon=(8, 8), steps=(3, 3), step_size=(0.25, 0.25))

    moved = 255 * (perturb(steps, network, images, labels) - images).abs()

    assert float(moved.amax()) == pytest.approx(6, abs=1e-3)


def test_the_number_of_steps_is_drawn_from_its_range_with_both_ends(images: Tensor, labels: Tensor) -> None:
    drawn = set()
    for seed in range(40):
        network = CountingNetwork()
        perturb(Attack(kind="bim", epsilon=(8, 8), steps=(2, 4)), network, images, labels, seed)
        drawn.add(network.calls)

    assert drawn == {2, 3, 4}


def test_every_image_draws_an_epsilon_of_its_own(network: CountingNetwork, labels: Tensor) -> None:
    gray = torch.full((16, *SHAPE), 128 / 255)

    adversarial = perturb(attack("fgsm", 2, 12), network, gray, labels)

    strengths = (255 * (adversarial - gray).abs().amax(dim=(1, 2, 3))).round()
    assert len(set(strengths.tolist())) >= 5


@each_attack
def test_the_same_seed_repeats_the_same_images(
    network: CountingNetwork, images: Tensor, labels: Tensor, kind: str
) -> None:
    first, again = (perturb(attack(kind, 2, 12), network, images, labels, 5) for _ in range(2))

    assert torch.equal(first, again)


@each_attack
def test_another_seed_gives_other_images(network: CountingNetwork, images: Tensor, labels: Tensor, kind: str) -> None:
    first, other = (perturb(attack(kind, 2, 12), network, images, labels, seed) for seed in (5, 6))

    assert not torch.equal(first, other)


def test_an_attack_leaves_the_images_and_the_network_as_they_are(
    network: CountingNetwork, images: Tensor, labels: Tensor
) -> None:
    before = images.clone()

    perturb(attack("pgd", 8, 8), network, images, labels)

    assert torch.equal(images, before)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_every_image_draws_a_step_size_of_its_own() -> None:
    strength = Attack(kind="bim", epsilon=(8, 8), steps=(3, 3), step_size=(0.2, 0.8))

    shares = (strength.draw(torch.Size([200, *SHAPE]), seeded()).step * 255 / 8).flatten()

    assert 0.2 <= float(shares.amin()) < 0.25
    assert 0.75 < float(shares.amax()) <= 0.8


@each_attack
def test_a_part_of_a_draw_perturbs_as_that_part_of_the_whole(
    network: CountingNetwork, images: Tensor, labels: Tensor, kind: str
) -> None:
    draw = attack(kind, 2, 12).draw(images.shape, seeded())
    odd = slice(1, 16, 2)

    whole = draw.perturb(network, images, labels)

    assert torch.equal(draw.part(odd).perturb(network, images[odd], labels[odd]), whole[odd])


def test_rounding_to_levels_does_not_leave_the_ball(network: CountingNetwork) -> None:
    images, labels = torch.full((4, *SHAPE), 128 / 255), torch.zeros(4, dtype=torch.int64)

    moved = 255 * (perturb(attack("fgsm", 2.6, 2.6), network, images, labels) - images)

    assert float(moved.abs().amax()) <= 2.601


def test_rounding_to_levels_keeps_whole_levels() -> None:
    images = torch.arange(256).repeat_interleave(17) / 255
    offsets = torch.arange(-8, 9).repeat(256) / 255
    moved = torch.clamp(images + offsets, 0, 1)

    torch.testing.assert_close(onto_levels(moved, images), moved)


class DeepNetwork(nn.Module):
    """A small network that is not linear, in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6),
            nn.Tanh(),
            nn.Conv2d(6, 8, 3),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(32, 4),
        )
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


class StartedAt(LinfProjectedGradientDescentAttack):
    """Foolbox's PGD from a start that is given rather than drawn."""

    def __init__(self, start: Tensor, *, step: float, steps: int) -> None:
        super().__init__(abs_stepsize=step, steps=steps, random_start=True)
        self.start = start

    def get_random_start(self, x0: Any, epsilon: float) -> Any:  # noqa: ARG002 - of the interface
        return x0 + type(x0)(self.start)


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.parametrize("epsilon", [2, 8, 30])
def test_perturbations_equal_those_of_foolbox(images: Tensor, labels: Tensor, kind: str, epsilon: int) -> None:
    network = DeepNetwork()
    radius, step = epsilon / 255, 0.3 * epsilon / 255
    start = radius * (2 * torch.rand(images.shape) - 1) if kind == "pgd" else torch.zeros(16, 1, 1, 1)
    independent: LinfBaseGradientDescent = {
        "fgsm": LinfFastGradientAttack(random_start=False),
        "bim": LinfBasicIterativeAttack(abs_stepsize=step, steps=5, random_start=False),
        "pgd": StartedAt(start, step=step, steps=5),
    }[kind]
    whole, length, steps = (
        torch.full((16, 1, 1, 1), radius),
        (radius if kind == "fgsm" else step),
        (1 if kind == "fgsm" else 5),
    )
    draw = AttackDraw(whole, torch.full((16, 1, 1, 1), length), start, steps)

    ours = draw.climb(network, images, lambda logits: functional.cross_entropy(logits, labels, reduction="sum"))

    model = PyTorchModel(network, bounds=(0, 1), device="cpu")
    theirs = independent.run(model, images, Misclassification(labels), epsilon=radius)
    assert float((ours - images).abs().amax()) > 0.9 * radius
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings_of_attack", "where"),
    [
        ({"kind": "pgd", "epsilon": (8, 4)}, "epsilon: 8.0 is above 4.0"),
        ({"kind": "pgd", "epsilon": (0, 4)}, "epsilon.0"),
        ({"kind": "pgd", "epsilon": (4, 8), "steps": (5, 3)}, "steps: 5 is above 3"),
        ({"kind": "pgd", "epsilon": (4, 8), "steps": (0, 3)}, "steps.0"),
        ({"kind": "pgd", "epsilon": (4, 8), "step_size": (0.5, 0.25)}, "step_size: 0.5 is above 0.25"),
        ({"kind": "pgd", "epsilon": (4, 8), "step_size": (0.5, 1.5)}, "step_size.1"),
        ({"kind": "fgsm", "epsilon": (4, 8), "steps": (2, 2)}, "fgsm takes one full step"),
        ({"kind": "fgsm", "epsilon": (4, 8), "step_size": (0.5, 0.5)}, "fgsm takes one full step"),
        ({"kind": "cw", "epsilon": (4, 8)}, "kind"),
        ({"kind": "pgd", "epsilon": (4, 8), "restarts": 2}, "restarts"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(settings_of_attack: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError, match=where):
        Attack.model_validate(settings_of_attack)
