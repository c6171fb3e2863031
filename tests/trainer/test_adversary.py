"""Attacks climb the loss, stay in their ball and on the 8-bit grid, and do what their names say."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from trainer.adversary import Attack

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


@each_attack
@settings(deadline=None, max_examples=25)
@given(epsilon=st.integers(1, 64), span=st.integers(0, 16), seed=st.integers(0, 2**32 - 1))
def test_adversarial_images_stay_in_the_ball_and_in_range(kind: str, epsilon: int, span: int, seed: int) -> None:
    images = torch.randint(256, (4, *SHAPE), generator=seeded(seed)) / 255
    perturb = attack(kind, epsilon, epsilon + span).perturb

    adversarial = perturb(CountingNetwork(), images, torch.arange(4), seeded(seed))

    assert adversarial.shape == images.shape
    assert adversarial.dtype == torch.float32
    assert float((adversarial - images).abs().amax()) <= (epsilon + span + 1e-3) / 255
    assert 0 <= float(adversarial.amin()) <= float(adversarial.amax()) <= 1


@each_attack
def test_adversarial_images_lie_on_the_8_bit_grid(
    network: CountingNetwork, images: Tensor, labels: Tensor, kind: str
) -> None:
    pixels = 255 * attack(kind, 3, 9).perturb(network, images, labels, seeded())

    torch.testing.assert_close(pixels, pixels.round(), atol=1e-4, rtol=0)


@each_attack
def test_an_attack_raises_the_loss_of_every_image(
    network: CountingNetwork, images: Tensor, labels: Tensor, kind: str
) -> None:
    adversarial = attack(kind, 8, 8).perturb(network, images, labels, seeded())

    with torch.inference_mode():
        before = functional.cross_entropy(network(images), labels, reduction="none")
        after = functional.cross_entropy(network(adversarial), labels, reduction="none")
    assert bool((after > before).all())


def test_fgsm_is_one_full_step_along_the_sign_of_the_gradient(
    network: CountingNetwork, images: Tensor, labels: Tensor
) -> None:
    adversarial = attack("fgsm", 8, 8).perturb(network, images, labels, seeded())

    assert network.calls == 1
    variable = images.clone().requires_grad_()
    functional.cross_entropy(network(variable), labels).backward()  # type: ignore[no-untyped-call]
    assert variable.grad is not None
    torch.testing.assert_close(adversarial, (images + variable.grad.sign() * 8 / 255).clamp(0, 1))


def test_bim_starts_at_the_image(network: CountingNetwork, images: Tensor, labels: Tensor) -> None:
    one_step = Attack(kind="bim", epsilon=(8, 8), step_size=(0.25, 0.25))

    moved = 255 * (one_step.perturb(network, images, labels, seeded()) - images).abs()

    assert float(moved.amax()) == pytest.approx(2, abs=1e-3)


def test_pgd_starts_anywhere_in_the_ball(network: CountingNetwork, images: Tensor, labels: Tensor) -> None:
    one_step = Attack(kind="pgd", epsilon=(8, 8), step_size=(0.25, 0.25))

    moved = 255 * (one_step.perturb(network, images, labels, seeded()) - images)

    assert set(moved.round().flatten().tolist()) == set(range(-8, 9))


def test_several_steps_go_further_than_one(network: CountingNetwork, images: Tensor, labels: Tensor) -> None:
    steps = Attack(kind="bim", epsilon=(8, 8), steps=(3, 3), step_size=(0.25, 0.25))

    moved = 255 * (steps.perturb(network, images, labels, seeded()) - images).abs()

    assert float(moved.amax()) == pytest.approx(6, abs=1e-3)


def test_the_number_of_steps_is_drawn_from_its_range_with_both_ends(images: Tensor, labels: Tensor) -> None:
    drawn = set()
    for seed in range(40):
        network = CountingNetwork()
        Attack(kind="bim", epsilon=(8, 8), steps=(2, 4)).perturb(network, images, labels, seeded(seed))
        drawn.add(network.calls)

    assert drawn == {2, 3, 4}


def test_every_image_draws_an_epsilon_of_its_own(network: CountingNetwork, labels: Tensor) -> None:
    gray = torch.full((16, *SHAPE), 128 / 255)

    adversarial = attack("fgsm", 2, 12).perturb(network, gray, labels, seeded())

    strengths = (255 * (adversarial - gray).abs().amax(dim=(1, 2, 3))).round()
    assert len(set(strengths.tolist())) >= 5


@each_attack
def test_the_same_seed_repeats_the_same_images(
    network: CountingNetwork, images: Tensor, labels: Tensor, kind: str
) -> None:
    perturb = attack(kind, 2, 12).perturb

    assert torch.equal(perturb(network, images, labels, seeded(5)), perturb(network, images, labels, seeded(5)))


@each_attack
def test_another_seed_gives_other_images(network: CountingNetwork, images: Tensor, labels: Tensor, kind: str) -> None:
    perturb = attack(kind, 2, 12).perturb

    assert not torch.equal(perturb(network, images, labels, seeded(5)), perturb(network, images, labels, seeded(6)))


def test_an_attack_leaves_the_images_and_the_network_as_they_are(
    network: CountingNetwork, images: Tensor, labels: Tensor
) -> None:
    before = images.clone()

    attack("pgd", 8, 8).perturb(network, images, labels, seeded())

    assert torch.equal(images, before)
    assert all(parameter.grad is None for parameter in network.parameters())


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
