"""Purifiers learn to undo an attack, from batches that all of one attack share."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning_fabric import Fabric
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from models.decoder import DecoderConfig
from models.encoders import EDSRConfig, RCANConfig
from models.purifier import PurifierConfig
from trainer.adversary import Attack
from trainer.checkpoint import Checkpoint
from trainer.errors import DeviceError
from trainer.guidance import Guidance
from trainer.images import LabeledImages
from trainer.loop import Loop
from trainer.pool import PoolTraining, PurifierTask, Victims
from trainer.query_noise import QueryNoise

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


@pytest.fixture
def surrogate() -> nn.Module:
    """A network with batch norm, whose statistics would tell if it were trained."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    return network.eval().requires_grad_(False)


@pytest.fixture
def plain_colors() -> LabeledImages:
    """Images of one color each: whatever else an attacked one shows is the attack."""
    labels = torch.arange(64) % 2
    levels = torch.randint(40, 216, (64, 3, 1, 1), generator=torch.Generator().manual_seed(0))
    return LabeledImages(levels.expand(-1, -1, 8, 8).to(torch.uint8).contiguous(), labels, ("red", "blue"))


def task(
    victims: nn.Module | Victims,
    data: LabeledImages,
    fabric: Fabric,
    training: PoolTraining = TRAINING,
    seed: int = 0,
) -> PurifierTask:
    return PurifierTask(
        training, "pgd", victims if isinstance(victims, Victims) else Victims(victims), data, fabric, seed
    )


def wider(config: PurifierConfig) -> PurifierConfig:
    return PurifierConfig(
        encoder=config.encoder.model_copy(update={"features": 8}), decoder=DecoderConfig(hidden=(16,))
    )


def weights(of: nn.Module) -> dict[str, list[float]]:
    return {name: tensor.tolist() for name, tensor in of.state_dict().items()}


def test_purifiers_learn_to_bring_attacked_images_back_towards_the_clean_ones(
    surrogate: nn.Module, plain_colors: LabeledImages, fabric: Fabric, tmp_path: Path
) -> None:
    wide = {name: wider(config) for name, config in TRAINING.purifiers.items()}
    training = TRAINING.model_copy(update={"steps": 100, "adversarial": 16, "clean": 0, "purifiers": wide})
    learner = task(surrogate, plain_colors, fabric, training)

    Loop(fabric).train(learner, Checkpoint(tmp_path / "pool.ckpt", {}))

    clean = plain_colors.images / 255
    draw = TRAINING.attacks["pgd"].draw(clean.shape, torch.Generator().manual_seed(1))
    attacked = draw.perturb(surrogate, clean, plain_colors.labels)
    for purifier in learner.purifiers.values():
        with torch.inference_mode():
            assert functional.l1_loss(purifier(attacked), clean) < 0.9 * functional.l1_loss(attacked, clean)


def test_the_first_loss_is_the_perturbation_itself_in_levels(
    surrogate: nn.Module, two_colors: LabeledImages, fabric: Fabric
) -> None:
    learner = task(surrogate, two_colors, fabric, TRAINING.model_copy(update={"crop": 12}))
    batch = learner._batch(0)

    metrics = learner.step(0)

    expected = 255 * float(functional.l1_loss(batch.inputs, batch.targets))
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(
        {"edsr/l1_levels": expected, "rcan/l1_levels": expected}
    )


def test_clean_images_weigh_lambda(surrogate: nn.Module, two_colors: LabeledImages, fabric: Fabric) -> None:
    training = TRAINING.model_copy(update={"clean_after": 0.0, "clean_weight": 3.0, "crop": 12})
    learner = task(surrogate, two_colors, fabric, training)
    darken(learner.purifiers["edsr"])
    batch = learner._batch(0)
    with torch.no_grad():
        attacked, clean = map(float, learner._errors(learner.purifiers["edsr"], batch))

    metrics = learner.step(0)

    assert clean > 0.05
    assert float(metrics["edsr/l1_levels"]) == pytest.approx(255 * (attacked + 3 * clean))


def darken(purifier: nn.Module) -> None:
    """Has a new purifier, which gives images back as they are, take 0.1 off all of them."""
    last = purifier.get_submodule("decoder.layers")[-1]  # type: ignore[index]
    nn.init.constant_(last.bias, -0.1)


def test_attacked_and_clean_images_have_errors_of_their_own(
    surrogate: nn.Module, two_colors: LabeledImages, fabric: Fabric
) -> None:
    training = TRAINING.model_copy(update={"clean_after": 0.0, "crop": 12})
    learner = task(surrogate, two_colors, fabric, training)
    batch = learner._batch(0)

    class Darkening(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images - 0.1

    attacked, clean = learner._errors(Darkening(), batch)

    assert float(clean) == pytest.approx(0.1, abs=1e-6)
    expected = (batch.inputs[:6] - 0.1 - batch.targets[:6]).abs().mean()
    torch.testing.assert_close(attacked, expected)


def test_the_seed_decides_first_weights_and_batches(
    surrogate: nn.Module, two_colors: LabeledImages, fabric: Fabric
) -> None:
    first, again, other = (task(surrogate, two_colors, fabric, seed=seed) for seed in (3, 3, 4))

    assert weights(first.purifiers) == weights(again.purifiers) != weights(other.purifiers)
    assert torch.equal(first._batch(2).inputs, again._batch(2).inputs)
    assert not torch.equal(first._batch(2).inputs, other._batch(2).inputs)
    assert not torch.equal(first._batch(2).inputs, first._batch(3).inputs)


def test_the_surrogate_stays_as_it_is(
    surrogate: nn.Module, two_colors: LabeledImages, fabric: Fabric, tmp_path: Path
) -> None:
    before = weights(surrogate)

    Loop(fabric).train(task(surrogate, two_colors, fabric), Checkpoint(tmp_path / "pool.ckpt", {}))

    assert weights(surrogate) == before


def test_a_batch_holds_attacked_images_and_then_clean_ones(
    surrogate: nn.Module, two_colors: LabeledImages, fabric: Fabric
) -> None:
    batch = task(surrogate, two_colors, fabric, TRAINING.model_copy(update={"clean_after": 0.0}))._batch(0)

    changed = (batch.inputs != batch.targets).flatten(1).any(1)
    assert batch.inputs.shape == batch.targets.shape == (9, 3, 12, 12)
    assert changed.tolist() == [True] * 6 + [False] * 3
    assert batch.attacked == 6
    assert float((batch.inputs - batch.targets).abs().amax()) <= 16.001 / 255


def test_noisy_images_stand_between_the_adversarial_and_the_clean_ones(
    surrogate: nn.Module, two_colors: LabeledImages, fabric: Fabric
) -> None:
    noise = QueryNoise(images=4, epsilon=(32, 32))
    training = TRAINING.model_copy(update={"clean_after": 0.5, "noise": noise})
    learner = task(surrogate, two_colors, fabric, training)

    for number, sorts in ((0, [9, 4, 0]), (5, [6, 4, 3])):
        batch = learner._batch(number)
        moved = 255 * (batch.inputs - batch.targets).abs().flatten(1).amax(1)
        assert batch.sorts == sorts
        assert batch.attacked == sum(sorts[:2])
        adversarial, noisy, clean = torch.split(moved, sorts)
        assert float(adversarial.amax()) <= 16.01
        assert float(noisy.amax()) > 16.01
        assert not clean.any()


def test_a_guide_is_shown_as_many_images_of_every_sort(
    surrogate: nn.Module, two_colors: LabeledImages, fabric: Fabric
) -> None:
    noise = QueryNoise(images=4, epsilon=(4, 12))
    learner = task(surrogate, two_colors, fabric, TRAINING.model_copy(update={"clean_after": 0.0, "noise": noise}))
    batch = learner._batch(0)

    inputs, targets = batch.some(2)

    chosen = [0, 1, 6, 7, 10, 11]
    assert torch.equal(inputs, batch.inputs[chosen])
    assert torch.equal(targets, batch.targets[chosen])


@pytest.mark.parametrize(("number", "attacked"), [(0, 9), (2, 9), (3, 6), (5, 6)])
def test_at_first_every_image_of_a_batch_is_attacked(
    surrogate: nn.Module, two_colors: LabeledImages, fabric: Fabric, number: int, attacked: int
) -> None:
    batch = task(surrogate, two_colors, fabric, TRAINING.model_copy(update={"clean_after": 0.5}))._batch(number)

    assert batch.attacked == attacked
    assert int((batch.inputs != batch.targets).flatten(1).any(1).sum()) == attacked


def test_purifiers_are_shown_crops_of_the_side_that_was_asked_for(
    surrogate: nn.Module, two_colors: LabeledImages, fabric: Fabric
) -> None:
    learner = task(surrogate, two_colors, fabric)
    seen: list[Tensor] = []

    class Looking(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return images

    batch = learner._batch(0)
    learner._errors(Looking(), batch)

    assert seen[0].shape == (9, 3, 6, 6)
    assert all(0 <= int(corner) <= 6 for corner in batch.corners.flatten())
    assert len({tuple(corner) for corner in batch.corners.tolist()}) > 3
    top, left = batch.corners[0].tolist()
    assert torch.equal(seen[0][0], batch.inputs[0, :, top : top + 6, left : left + 6])


def test_a_guided_pool_trains_and_leaves_the_classifier_as_it_is(
    surrogate: nn.Module, two_colors: LabeledImages, fabric: Fabric, tmp_path: Path
) -> None:
    classifier = nn.Sequential(nn.Conv2d(3, 2, 12), nn.BatchNorm2d(2), nn.Flatten()).eval().requires_grad_(False)
    before = weights(classifier)
    guided = TRAINING.model_copy(update={"guidance": Guidance(weight=0.5, images=2)})
    learners = {
        name: task(Victims(surrogate, classifier), two_colors, fabric, training)
        for name, training in (("guided", guided), ("plain", TRAINING))
    }

    for name, learner in learners.items():
        Loop(fabric).train(learner, Checkpoint(tmp_path / name, {}))

    assert weights(learners["guided"].purifiers) != weights(learners["plain"].purifiers)
    assert weights(classifier) == before


def test_guidance_begins_after_its_share_of_the_steps(
    surrogate: nn.Module, two_colors: LabeledImages, fabric: Fabric
) -> None:
    guided = TRAINING.model_copy(update={"steps": 4, "guidance": Guidance(weight=0.5, images=2, after=0.5)})
    learner = task(Victims(surrogate, surrogate), two_colors, fabric, guided)

    told = [learner.step(number)["edsr/guidance"].item() for number in range(4)]

    assert [value > 0 for value in told] == [False, False, True, True]


def test_a_guided_pool_tells_both_terms(surrogate: nn.Module, two_colors: LabeledImages, fabric: Fabric) -> None:
    guided = TRAINING.model_copy(update={"guidance": Guidance(weight=0.5, images=2)})

    metrics = task(Victims(surrogate, surrogate), two_colors, fabric, guided).step(0)

    assert metrics.keys() == {"edsr/l1_levels", "edsr/guidance", "rcan/l1_levels", "rcan/guidance"}


def test_noise_that_cannot_be_shared_equally_is_told(surrogate: nn.Module, two_colors: LabeledImages) -> None:
    one_of_two = cast("Fabric", SimpleNamespace(world_size=2, global_rank=0, device=torch.device("cpu")))
    noise = QueryNoise(images=3, epsilon=(4, 12))
    training = TRAINING.model_copy(update={"clean": 4, "noise": noise})

    with pytest.raises(DeviceError, match=r"pool\.training\.noise\.images of 3 images cannot be shared by 2 processes"):
        task(surrogate, two_colors, one_of_two, training)


@pytest.mark.parametrize("name", ["adversarial", "clean"])
def test_a_batch_that_cannot_be_shared_equally_is_told(
    surrogate: nn.Module, two_colors: LabeledImages, name: str
) -> None:
    one_of_two = cast("Fabric", SimpleNamespace(world_size=2, global_rank=0, device=torch.device("cpu")))
    training = TRAINING.model_copy(update={"adversarial": 6, "clean": 4, name: 5})

    with pytest.raises(DeviceError, match=f"pool.training.{name} of 5 images cannot be shared by 2 processes"):
        task(surrogate, two_colors, one_of_two, training)


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ({"steps": 0}, "steps is 0: name the bundle"),
        ({"steps": -1}, "steps"),
        ({"attacks": {}}, "attacks"),
        ({"purifiers": {}}, "purifiers"),
        ({"clean_after": 1.5}, "clean_after"),
        ({"adversarial": 0}, "adversarial"),
        ({"guidance": {"weight": 0, "images": 2}}, "weight"),
        ({"guidance": {"weight": 1, "images": 4}}, "4 of each sort, but clean is 3"),
        (
            {"guidance": {"weight": 1, "images": 3}, "noise": {"images": 2, "epsilon": (4, 12)}},
            "3 of each sort, but noise.images is 2",
        ),
        ({"noise": {"images": 0, "epsilon": (4, 12)}}, "images"),
        ({"noise": {"images": 2, "epsilon": (12, 4)}}, "low first"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(said: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError, match=where):
        PoolTraining.model_validate({**TRAINING.model_dump(), **said})


@pytest.mark.parametrize(
    ("said", "batches"),
    [
        ({}, {6, 9}),
        ({"guidance": {"weight": 1, "images": 2}}, {6, 9, 4}),
        ({"guidance": {"weight": 1, "images": 1}, "noise": {"images": 4, "epsilon": (4, 12)}}, {6, 9, 3}),
        ({"guidance": {"weight": 1, "images": 2}, "clean": 0}, {6, 2}),
    ],
)
def test_it_knows_the_batches_that_networks_will_be_shown(said: dict[str, Any], batches: set[int]) -> None:
    training = PoolTraining.model_validate({**TRAINING.model_dump(), **said})

    assert set(training.batches()) == batches
