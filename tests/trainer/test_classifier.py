"""A classifier learns, from every image once an epoch, at the resolutions it was told."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from lightning_fabric import Fabric
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from models.classifiers import ResNetConfig
from models.classifiers.normalization import Normalized
from trainer.adversarial_training import MadryTraining
from trainer.adversary import Attack
from trainer.checkpoint import Checkpoint
from trainer.classifier import ClassifierTask, ClassifierTraining, Phase
from trainer.errors import DeviceError, TooFewImagesError
from trainer.images import LabeledImages
from trainer.loop import Loop

TRAINING = ClassifierTraining(
    phases=(Phase(epochs=1, resolution=8), Phase(epochs=2, resolution=12)),
    batch_size=16,
    peak_learning_rate=0.05,
    padding=1,
)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Normalized(ResNetConfig(width=8, blocks=(1, 1, 1, 1)).build(2), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class Averaging(nn.Module):
    """Looks at the mean color; remembers all that it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        logits: Tensor = self.head(images.mean(dim=(2, 3)))
        return logits


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tmp_path / "classifier.ckpt", {})


def task(
    of: nn.Module, data: LabeledImages, fabric: Fabric, training: ClassifierTraining = TRAINING, seed: int = 0
) -> ClassifierTask:
    return ClassifierTask("classifier", of, training, data, fabric, seed)


def test_a_classifier_learns_to_tell_two_colors_apart(
    two_colors: LabeledImages, fabric: Fabric, checkpoint: Checkpoint
) -> None:
    learner = network()

    Loop(fabric).train(task(learner, two_colors, fabric), checkpoint)

    with torch.inference_mode():
        predicted = learner.eval()(two_colors.images / 255).argmax(1)
    assert float((predicted == two_colors.labels).float().mean()) > 0.95


def test_the_seed_decides_the_training(two_colors: LabeledImages, fabric: Fabric) -> None:
    seen = []
    for seed in (3, 3, 4):
        learner = Averaging()
        task(learner, two_colors, fabric, seed=seed).step(0)
        seen.append(learner.seen[0])

    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


class Dropping(nn.Module):
    """Draws as dropout and stochastic depth do, from the global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.kept: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        mask = functional.dropout(torch.ones(len(images), 3), training=self.training)
        if self.training:
            self.kept.append(mask)
        logits: Tensor = self.head(images.mean(dim=(2, 3)) * mask)
        return logits


@pytest.mark.parametrize(
    "adversarial", [None, MadryTraining(method="madry", attack=Attack(kind="fgsm", epsilon=(4, 8)))]
)
def test_the_seed_decides_what_the_network_drops_in_each_step_and_nothing_before_does(
    two_colors: LabeledImages, fabric: Fabric, adversarial: MadryTraining | None
) -> None:
    training = TRAINING.model_copy(update={"adversarial": adversarial})
    kept = []
    for seed, number in ((3, 1), (3, 1), (3, 2), (4, 1)):
        learner = Dropping()
        torch.seed()
        task(learner, two_colors, fabric, training, seed).step(number)
        kept.append(learner.kept[0])

    assert torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[0], kept[2])
    assert not torch.equal(kept[0], kept[3])


def test_a_step_leaves_the_global_generator_as_it_was(two_colors: LabeledImages, fabric: Fabric) -> None:
    learning = task(Dropping(), two_colors, fabric)
    before = torch.random.get_rng_state()

    learning.step(0)

    assert torch.equal(torch.random.get_rng_state(), before)


def test_small_images_are_trained_first(two_colors: LabeledImages, fabric: Fabric, checkpoint: Checkpoint) -> None:
    learner = Averaging()

    Loop(fabric).train(task(learner, two_colors, fabric), checkpoint)

    assert [tuple(one.shape) for one in learner.seen] == [(16, 3, 8, 8)] * 4 + [(16, 3, 12, 12)] * 8
    assert all(0 <= float(one.amin()) <= float(one.amax()) <= 1 for one in learner.seen)


def test_every_image_is_seen_once_an_epoch(fabric: Fabric, checkpoint: Checkpoint) -> None:
    levels = torch.arange(48, dtype=torch.uint8)
    data = LabeledImages(levels.view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous(), levels.long() % 2, ("even", "odd"))
    learner = Averaging()

    Loop(fabric).train(task(learner, data, fabric), checkpoint)

    seen = (255 * torch.cat([one[:, 0, 0, 0] for one in learner.seen])).round().int().tolist()
    epochs = [seen[start : start + 48] for start in range(0, len(seen), 48)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(48))] * 3
    assert epochs[0] != epochs[1]


def test_a_label_stays_with_its_image(fabric: Fabric) -> None:
    levels = torch.arange(64, dtype=torch.uint8)
    data = LabeledImages(levels.view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous(), levels.long(), ("one", "many"))
    training = TRAINING.model_copy(update={"phases": (Phase(epochs=1, resolution=8),)})

    images, labels = task(Averaging(), data, fabric, training)._batch(1)

    assert (255 * images[:, 0, 0, 0]).round().long().tolist() == labels.tolist()


def test_biases_and_batch_norms_do_not_decay(two_colors: LabeledImages, fabric: Fabric) -> None:
    learner = network()

    groups = task(learner, two_colors, fabric).optimizer.param_groups

    decaying = {id(one) for group in groups if group["weight_decay"] for one in group["params"]}
    assert decaying == {id(one) for one in learner.parameters() if one.ndim > 1}
    assert sum(len(group["params"]) for group in groups) == len(list(learner.parameters()))


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing(two_colors: LabeledImages, fabric: Fabric) -> None:
    learning = task(Averaging(), two_colors, fabric)
    rates = []
    for number in range(learning.steps):
        rates.append(learning.optimizer.param_groups[0]["lr"])
        learning.step(number)

    assert max(rates) == pytest.approx(0.05, rel=0.2)
    assert rates.index(max(rates)) in (1, 2)
    assert rates[-1] < 0.01


def test_a_warm_up_of_just_one_step_begins_at_the_peak(two_colors: LabeledImages, fabric: Fabric) -> None:
    training = TRAINING.model_copy(update={"phases": (Phase(epochs=1, resolution=8),), "warmup": 0.25})
    learning = task(Averaging(), two_colors, fabric, training)
    rates = []
    for number in range(4):
        rates.append(learning.optimizer.param_groups[0]["lr"])
        learning.step(number)

    assert rates == pytest.approx([0.05, 0.05 * 2 / 3, 0.05 / 3, 0], abs=1e-6)


def test_a_classifier_can_be_trained_without_momentum(two_colors: LabeledImages, fabric: Fabric) -> None:
    learner = Averaging()
    learning = task(learner, two_colors, fabric, TRAINING.model_copy(update={"momentum": 0, "weight_decay": 0}))
    before, rate = learner.head.weight.detach().clone(), learning.optimizer.param_groups[0]["lr"]

    learning.step(0)

    assert learner.head.weight.grad is not None
    torch.testing.assert_close(learner.head.weight, before - rate * learner.head.weight.grad)


def test_fewer_images_than_a_batch_are_told(two_colors: LabeledImages, fabric: Fabric) -> None:
    with pytest.raises(TooFewImagesError, match="classifier: 15 images are fewer than a batch of 16"):
        task(network(), two_colors.spread(15), fabric)


def test_a_batch_that_cannot_be_shared_equally_is_told(two_colors: LabeledImages) -> None:
    one_of_three = cast("Fabric", SimpleNamespace(world_size=3, global_rank=0))

    with pytest.raises(DeviceError, match="classifier: a batch of 16 images cannot be shared by 3 processes"):
        task(network(), two_colors, one_of_three)


@pytest.mark.parametrize("setting", ["batch_size", "peak_learning_rate", "warmup"])
def test_a_setting_of_zero_is_refused(setting: str) -> None:
    with pytest.raises(ValidationError, match=setting):
        ClassifierTraining.model_validate({"phases": [{"epochs": 1, "resolution": 8}], setting: 0})


def test_labels_that_are_smoothed_by_more_than_all_are_refused() -> None:
    with pytest.raises(ValidationError, match="label_smoothing"):
        ClassifierTraining.model_validate({"phases": [{"epochs": 1, "resolution": 8}], "label_smoothing": 1.1})
