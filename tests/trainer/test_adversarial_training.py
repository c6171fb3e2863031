"""Adversarial training teaches a classifier to keep its answers on attacked images."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional

from models.classifiers import ResNetConfig
from models.classifiers.normalization import Normalized
from trainer.adversarial_training import AdversarialTraining, Example, MadryTraining, TradesTraining
from trainer.adversary import Attack
from trainer.checkpoint import Checkpoint
from trainer.classifier import ClassifierTask, ClassifierTraining, Phase
from trainer.images import LabeledImages
from trainer.loop import Loop

PGD = Attack(kind="pgd", epsilon=(24, 24), steps=(3, 3), step_size=(0.4, 0.4))
METHODS: dict[str, MadryTraining | TradesTraining] = {
    "madry": MadryTraining(method="madry", attack=PGD),
    "trades": TradesTraining(method="trades", attack=PGD),
}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def network() -> nn.Module:
    torch.manual_seed(0)
    return Normalized(ResNetConfig(width=8, blocks=(1, 1, 1, 1)).build(2), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture
def example(two_colors: LabeledImages) -> Example:
    images = two_colors.images[:16] / 255
    draw = PGD.draw(images.shape, torch.Generator().manual_seed(0))
    return Example(images, two_colors.labels[:16], draw, 0.1)


def attacked_loss(of: nn.Module, data: LabeledImages) -> float:
    clean = data.images / 255
    attacked = PGD.draw(clean.shape, torch.Generator().manual_seed(1)).perturb(of.eval(), clean, data.labels)
    with torch.inference_mode():
        return float(functional.cross_entropy(of(attacked), data.labels))


@each_method
def test_a_network_that_trains_adversarially_resists_attacks_better_than_one_that_does_not(
    method: AdversarialTraining, two_colors: LabeledImages, fabric: Fabric, tmp_path: Path
) -> None:
    training = ClassifierTraining(
        phases=(Phase(epochs=6, resolution=12),), batch_size=16, peak_learning_rate=0.05, padding=1, label_smoothing=0
    )
    losses = {}
    for name, how in (("plain", None), ("adversarial", method)):
        learner = network()
        task = ClassifierTask(
            name, learner, training.model_copy(update={"adversarial": how}), two_colors, fabric, seed=0
        )
        Loop(fabric).train(task, Checkpoint(tmp_path / name, {}))
        losses[name] = attacked_loss(learner, two_colors)

    assert losses["adversarial"] < attacked_loss(network(), two_colors)
    assert losses["adversarial"] < 0.8 * losses["plain"]


@each_method
def test_attacking_leaves_the_statistics_and_the_mode_of_the_network_as_they_are(
    method: AdversarialTraining, example: Example
) -> None:
    learner = network().train()
    before = {name: one.clone() for name, one in learner.state_dict().items()}

    method.attack_images(learner, example)

    assert learner.training
    assert all(torch.equal(learner.state_dict()[name], one) for name, one in before.items())
    assert all(parameter.grad is None for parameter in learner.parameters())


@each_method
def test_attacks_see_the_network_in_evaluation_mode(method: AdversarialTraining, example: Example) -> None:
    modes = set()

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, images: Tensor) -> Tensor:
            modes.add(self.training)
            logits: Tensor = self.head(images.mean(dim=(2, 3)))
            return logits

    method.attack_images(Watched().train(), example)

    assert modes == {False}


@each_method
def test_attacked_images_stay_in_the_ball_and_in_range(method: AdversarialTraining, example: Example) -> None:
    attacked = method.attack_images(network(), example)

    assert 0 < float((attacked - example.images).abs().amax()) <= 24.001 / 255
    assert 0 <= float(attacked.amin()) <= float(attacked.amax()) <= 1


def test_madry_attacks_what_the_label_says(example: Example) -> None:
    learner = network().eval()

    attacked = METHODS["madry"].attack_images(learner, example)

    learner.eval()
    before, after = (functional.cross_entropy(learner(one), example.labels) for one in (example.images, attacked))
    assert after > before


def test_trades_moves_the_answer_whatever_the_label_says(example: Example) -> None:
    learner = network()
    other = Example(example.images, 1 - example.labels, example.draw, example.smoothing)

    attacked = METHODS["trades"].attack_images(learner, example)

    assert torch.equal(attacked, METHODS["trades"].attack_images(learner, other))


def test_the_loss_of_madry_is_the_cross_entropy_of_attacked_images(example: Example) -> None:
    learner, attacked = network().eval(), example.images.flip(0)

    loss = METHODS["madry"].loss(learner, example, attacked)

    expected = functional.cross_entropy(learner(attacked), example.labels, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)


def test_the_loss_of_trades_is_the_clean_cross_entropy_and_beta_times_the_divergence(example: Example) -> None:
    learner, attacked = network().eval(), example.images.flip(0)

    loss = TradesTraining(method="trades", attack=PGD, beta=3).loss(learner, example, attacked)

    clean, moved = (functional.softmax(learner(one), dim=1) for one in (example.images, attacked))
    divergence = (clean * (clean.log() - moved.log())).sum(1).mean()
    natural = functional.cross_entropy(learner(example.images), example.labels, label_smoothing=0.1)
    torch.testing.assert_close(loss, natural + 3 * divergence)


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ({"method": "trades", "attack": {"kind": "bim", "epsilon": (8, 8)}}, "trades needs a pgd attack"),
        ({"method": "trades", "attack": {"kind": "fgsm", "epsilon": (8, 8)}}, "trades needs a pgd attack"),
        ({"method": "trades", "attack": PGD, "beta": 0}, "beta"),
        ({"method": "madry", "attack": PGD, "beta": 6}, "beta"),
        ({"method": "free", "attack": PGD}, "'free'"),
    ],
)
def test_a_method_that_makes_no_sense_is_refused(said: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError, match=where):
        TypeAdapter[AdversarialTraining](AdversarialTraining).validate_python(said)
