"""Purifiers learn to undo an attack, and an interrupted training ends where a plain one does."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from models.decoder import DecoderConfig
from models.encoders import EDSRConfig, RCANConfig
from models.purifier import PurifierConfig
from trainer.adversary import Attack
from trainer.images import LabeledImages
from trainer.pool import PoolTraining, PurifierTrainer

CPU = torch.device("cpu")
TRAINING = PoolTraining(
    attacks={
        "fgsm": Attack(kind="fgsm", epsilon=(8, 16)),
        "pgd": Attack(kind="pgd", epsilon=(8, 16), steps=(1, 3), step_size=(0.3, 0.6)),
    },
    purifiers={
        "edsr": PurifierConfig(encoder=EDSRConfig(features=4, blocks=1), decoder=DecoderConfig(hidden=(8,))),
        "rcan": PurifierConfig(
            encoder=RCANConfig(features=4, groups=1, blocks=1, reduction=2), decoder=DecoderConfig(hidden=(8,))
        ),
    },
    steps=6,
    adversarial=6,
    clean=3,
    crop=6,
    peak_learning_rate=1e-2,
)


class StoppedError(Exception):
    """Somebody stopped the training."""


class Reports(list[tuple[int, dict[str, float]]]):
    """What was reported: the step and the losses since the last report."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.stop_after = stop_after

    def __call__(self, step: int, losses: dict[str, float]) -> None:
        self.append((step, losses))
        if step == self.stop_after:
            raise StoppedError


@pytest.fixture
def surrogate() -> nn.Module:
    """A network with batch norm, whose statistics would tell if it were trained."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


@pytest.fixture
def plain_colors() -> LabeledImages:
    """Images of one color each: whatever else an attacked one shows is the attack."""
    labels = torch.arange(64) % 2
    levels = torch.randint(40, 216, (64, 3, 1, 1), generator=torch.Generator().manual_seed(0))
    return LabeledImages(levels.expand(-1, -1, 8, 8).to(torch.uint8).contiguous(), labels, ("red", "blue"))


def trainer(
    surrogate: nn.Module, data: LabeledImages, training: PoolTraining = TRAINING, seed: int = 0
) -> PurifierTrainer:
    return PurifierTrainer(training, "pgd", surrogate, data, CPU, seed)


def wider(config: PurifierConfig) -> PurifierConfig:
    return PurifierConfig(
        encoder=config.encoder.model_copy(update={"features": 8}), decoder=DecoderConfig(hidden=(16,))
    )


def weights(of: nn.Module) -> dict[str, list[float]]:
    return {name: tensor.tolist() for name, tensor in of.state_dict().items()}


def test_purifiers_learn_to_bring_attacked_images_back_towards_the_clean_ones(
    surrogate: nn.Module, plain_colors: LabeledImages, tmp_path: Path
) -> None:
    wide = {name: wider(config) for name, config in TRAINING.purifiers.items()}
    training = TRAINING.model_copy(update={"steps": 100, "adversarial": 16, "clean": 0, "purifiers": wide})
    learner, reports = trainer(surrogate, plain_colors, training), Reports()

    learner.run(tmp_path / "checkpoint", reports, every=20)

    clean = plain_colors.images / 255
    attacked = TRAINING.attacks["pgd"].perturb(surrogate, clean, plain_colors.labels, torch.Generator().manual_seed(1))
    for name, purifier in learner.purifiers.items():
        assert reports[-1][1][name] < 0.9 * reports[0][1][name]
        with torch.inference_mode():
            assert functional.l1_loss(purifier(attacked), clean) < 0.9 * functional.l1_loss(attacked, clean)


def test_the_first_reported_loss_is_the_perturbation_itself(
    surrogate: nn.Module, two_colors: LabeledImages, tmp_path: Path
) -> None:
    inputs, targets = trainer(surrogate, two_colors)._batch()
    reports = Reports()

    trainer(surrogate, two_colors).run(tmp_path / "checkpoint", reports, every=1)

    step, losses = reports[0]
    assert step == 1
    assert losses == pytest.approx(dict.fromkeys(("edsr", "rcan"), float(functional.l1_loss(inputs, targets))))


def test_a_report_tells_the_mean_loss_since_the_last_one(
    surrogate: nn.Module, two_colors: LabeledImages, tmp_path: Path
) -> None:
    each, pairs = Reports(), Reports()

    trainer(surrogate, two_colors).run(tmp_path / "each", each, every=1)
    trainer(surrogate, two_colors).run(tmp_path / "pairs", pairs, every=2)

    assert [step for step, _ in pairs] == [2, 4, 6]
    for (_, mean), (_, first), (_, second) in zip(pairs, each[0::2], each[1::2], strict=True):
        assert mean == pytest.approx({name: (first[name] + second[name]) / 2 for name in first})


@pytest.mark.parametrize("stop_after", [2, 4])
def test_an_interrupted_training_that_goes_on_ends_where_a_plain_one_does(
    surrogate: nn.Module, two_colors: LabeledImages, tmp_path: Path, stop_after: int
) -> None:
    plain, told = trainer(surrogate, two_colors), Reports()
    plain.run(tmp_path / "plain", told, every=2)
    with pytest.raises(StoppedError):
        trainer(surrogate, two_colors).run(tmp_path / "interrupted", Reports(stop_after), every=2)

    resumed, told_later = trainer(surrogate, two_colors, seed=99), Reports()
    resumed.run(tmp_path / "interrupted", told_later, every=2)

    assert told_later == told[stop_after // 2 :]
    assert weights(resumed.purifiers) == weights(plain.purifiers)


def test_the_same_seed_repeats_the_same_training(
    surrogate: nn.Module, two_colors: LabeledImages, tmp_path: Path
) -> None:
    first, second, other = (trainer(surrogate, two_colors, seed=seed) for seed in (3, 3, 4))

    for name, learner in (("first", first), ("second", second), ("other", other)):
        learner.run(tmp_path / name, Reports())

    assert weights(first.purifiers) == weights(second.purifiers)
    assert weights(first.purifiers) != weights(other.purifiers)


def test_a_finished_training_is_not_trained_again(
    surrogate: nn.Module, two_colors: LabeledImages, tmp_path: Path
) -> None:
    finished = trainer(surrogate, two_colors)
    finished.run(tmp_path / "checkpoint", Reports())

    again, reports = trainer(surrogate, two_colors, seed=99), Reports()
    again.run(tmp_path / "checkpoint", reports)

    assert reports == []
    assert weights(again.purifiers) == weights(finished.purifiers)


def test_the_surrogate_stays_as_it_is(surrogate: nn.Module, two_colors: LabeledImages, tmp_path: Path) -> None:
    before = weights(surrogate)

    trainer(surrogate, two_colors).run(tmp_path / "checkpoint", Reports())

    assert weights(surrogate) == before


def test_a_batch_holds_attacked_crops_and_then_clean_ones(surrogate: nn.Module, two_colors: LabeledImages) -> None:
    training = TRAINING.model_copy(update={"clean_after": 0.0})

    inputs, targets = trainer(surrogate, two_colors, training)._batch()

    changed = (inputs != targets).flatten(1).any(1)
    assert inputs.shape == targets.shape == (9, 3, 6, 6)
    assert changed.tolist() == [True] * 6 + [False] * 3
    assert float((inputs - targets).abs().amax()) <= 16.001 / 255


def test_at_first_every_image_of_a_batch_is_attacked(surrogate: nn.Module, two_colors: LabeledImages) -> None:
    training = TRAINING.model_copy(update={"clean_after": 0.5})

    inputs, targets = trainer(surrogate, two_colors, training)._batch()

    assert bool((inputs != targets).flatten(1).any(1).all())
