"""A classifier learns, and an interrupted training ends where a plain one does."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from models.classifiers import ResNetConfig
from models.classifiers.normalization import Normalized
from trainer.classifier import ClassifierTrainer, ClassifierTraining, Phase
from trainer.images import LabeledImages

CPU = torch.device("cpu")
TRAINING = ClassifierTraining(
    phases=(Phase(epochs=1, resolution=8), Phase(epochs=2, resolution=12)),
    batch_size=16,
    peak_learning_rate=0.05,
    padding=1,
)


class StoppedError(Exception):
    """Somebody stopped the training."""


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Normalized(ResNetConfig(width=4, blocks=(1, 1, 1, 1)).build(2), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def trainer(data: LabeledImages, of: nn.Module, seed: int = 0) -> ClassifierTrainer:
    return ClassifierTrainer(of, TRAINING, data, CPU, seed)


def weights(of: nn.Module) -> dict[str, list[float]]:
    return {name: tensor.tolist() for name, tensor in of.state_dict().items()}


class Reports(list[tuple[int, float]]):
    """What was reported: the number and the loss of each epoch."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.stop_after = stop_after

    def __call__(self, epoch: int, loss: float) -> None:
        self.append((epoch, loss))
        if epoch == self.stop_after:
            raise StoppedError


def test_a_classifier_learns_to_tell_two_colors_apart(two_colors: LabeledImages, tmp_path: Path) -> None:
    learner, reports = network(), Reports()

    trainer(two_colors, learner).run(tmp_path / "checkpoint", reports)

    with torch.inference_mode():
        predicted = learner.eval()(two_colors.images / 255).argmax(1)
    assert [epoch for epoch, _ in reports] == [1, 2, 3]
    assert reports[2][1] < reports[0][1]
    assert float((predicted == two_colors.labels).float().mean()) > 0.95


@pytest.mark.parametrize("stop_after", [1, 2])
def test_an_interrupted_training_that_goes_on_ends_where_a_plain_one_does(
    two_colors: LabeledImages, tmp_path: Path, stop_after: int
) -> None:
    plain, told = network(), Reports()
    trainer(two_colors, plain).run(tmp_path / "plain", told)
    with pytest.raises(StoppedError):
        trainer(two_colors, network()).run(tmp_path / "interrupted", Reports(stop_after))

    resumed, told_later = network(seed=99), Reports()
    trainer(two_colors, resumed, seed=99).run(tmp_path / "interrupted", told_later)

    assert told_later == told[stop_after:]
    assert weights(resumed) == weights(plain)


def test_the_same_seed_repeats_the_same_training(two_colors: LabeledImages, tmp_path: Path) -> None:
    first, second, other = network(), network(), network()

    for name, learner, seed in (("first", first, 3), ("second", second, 3), ("other", other, 4)):
        trainer(two_colors, learner, seed).run(tmp_path / name, Reports())

    assert weights(first) == weights(second)
    assert weights(first) != weights(other)


def test_a_finished_training_is_not_trained_again(two_colors: LabeledImages, tmp_path: Path) -> None:
    finished = network()
    trainer(two_colors, finished).run(tmp_path / "checkpoint", Reports())

    again, reports = network(seed=99), Reports()
    trainer(two_colors, again).run(tmp_path / "checkpoint", reports)

    assert reports == []
    assert weights(again) == weights(finished)


def test_small_images_are_trained_first(two_colors: LabeledImages, tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, images: Tensor) -> Tensor:
            seen.append(tuple(images.shape))
            assert 0 <= float(images.amin()) <= float(images.amax()) <= 1
            logits: Tensor = self.head(images.mean(dim=(2, 3)))
            return logits

    trainer(two_colors, Watched()).run(tmp_path / "checkpoint", Reports())

    assert seen == [(16, 3, 8, 8)] * 4 + [(16, 3, 12, 12)] * 8


def test_every_image_is_seen_once_an_epoch(tmp_path: Path) -> None:
    levels = torch.arange(48, dtype=torch.uint8)
    data = LabeledImages(levels.view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous(), levels.long() % 2, ("even", "odd"))
    seen: list[int] = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, images: Tensor) -> Tensor:
            seen.extend((255 * images[:, 0, 0, 0]).round().int().tolist())
            logits: Tensor = self.head(images.mean(dim=(2, 3)))
            return logits

    trainer(data, Watched()).run(tmp_path / "checkpoint", Reports())

    epochs = [seen[start : start + 48] for start in range(0, len(seen), 48)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(48))] * 3
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("setting", ["batch_size", "peak_learning_rate", "warmup"])
def test_a_setting_of_zero_is_refused(setting: str) -> None:
    with pytest.raises(ValidationError, match=setting):
        ClassifierTraining.model_validate({"phases": [{"epochs": 1, "resolution": 8}], setting: 0})
