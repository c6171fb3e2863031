"""Accuracy is the share of right answers, undefended, behind each purifier, and behind the pool."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.bundle import Bundle, read_bundle
from models.device import choose_precision
from models.purifier import Purifier
from trainer.accuracy import Accuracy, AttackedImages, attack_images, measure
from trainer.adversary import Attack
from trainer.images import LabeledImages
from trainer.inference import accuracy, batch_size, outputs

CPU = torch.device("cpu")
ATTACK = Attack(kind="pgd", epsilon=(8, 8), steps=(10, 10), step_size=(0.25, 0.25))


@pytest.fixture
def data() -> LabeledImages:
    images = torch.randint(256, (24, 3, 32, 32), dtype=torch.uint8)
    return LabeledImages(images, torch.arange(24) % 4, ("airplane", "bird", "cat", "deer"))


@pytest.fixture
def bundle(bundle_folder: Path, data: LabeledImages) -> Bundle:
    """The toy bundle around a classifier that is always right on `data`, as long as nothing changes a pixel."""
    bundle = read_bundle(bundle_folder)

    class Memory(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            known = (images[:, None] == data.images[None] / 255).flatten(2).all(2)
            return known.float() @ torch.nn.functional.one_hot(data.labels, 4).float() + torch.tensor([0, 0, 0, 0.5])

    return Bundle(bundle.manifest, Memory(), bundle.purifiers)


def identical(bundle: Bundle) -> Bundle:
    """The same bundle with purifiers that do nothing yet."""
    new = {entry.name: Purifier(entry.architecture).requires_grad_(False) for entry in bundle.manifest.pool.purifiers}
    return Bundle(bundle.manifest, bundle.classifier, new)


def attacked(data: LabeledImages) -> AttackedImages:
    return AttackedImages(data, "surrogate", ATTACK)


def test_accuracy_is_the_share_of_right_answers() -> None:
    def by_color(images: Tensor) -> Tensor:
        assert 0 <= float(images.amin()) <= float(images.amax()) <= 1
        return images.mean(dim=(2, 3))

    colors = torch.zeros(600, 3, 2, 2, dtype=torch.uint8)
    colors[torch.arange(600), torch.arange(600) % 3] = 255
    labels = torch.arange(600) % 3
    labels[:150] = (labels[:150] + 1) % 3

    data = LabeledImages(colors, labels, ("red", "green", "blue"))
    assert accuracy(outputs(by_color, data, CPU), data) == 0.75


@pytest.mark.parametrize(("side", "count"), [(12, 250), (32, 250), (224, 79), (2000, 1), (3000, 1)])
def test_a_batch_is_bounded_by_images_and_by_pixels(side: int, count: int) -> None:
    one = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(500, 3, side, side)

    assert batch_size(LabeledImages(one, torch.zeros(500).long(), ("red",)), 4_000_000) == count


def test_large_images_go_through_a_network_a_few_at_a_time() -> None:
    seen: list[int] = []

    class Color(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            return images.mean(dim=(2, 3))

    data = LabeledImages(torch.zeros(100, 3, 224, 224, dtype=torch.uint8), torch.zeros(100).long(), ("red",))
    strength = Attack(kind="fgsm", epsilon=(8, 8))

    outputs(Color(), data, CPU)
    assert seen == [79, 21]
    seen.clear()
    moved = attack_images(Color(), data, strength, CPU)
    assert seen == [5] * 20
    assert moved.images.shape == data.images.shape


def test_purifiers_that_do_nothing_cost_no_accuracy(bundle: Bundle, data: LabeledImages) -> None:
    measured = measure(identical(bundle), data, attacked(data), CPU, grids=(1, 2), draws=2)

    assert measured == Accuracy(
        images=24,
        precision=choose_precision("auto", CPU),
        classifier=1.0,
        purifiers={"fgsm-edsr": 1.0, "fgsm-rcan": 1.0, "pgd-edsr": 1.0, "pgd-rcan": 1.0},
        grids={1: (1.0, 0.0), 2: (1.0, 0.0)},
        attacked=(1.0, 1.0),
        attacked_images=24,
        attacked_by="surrogate",
        attack=ATTACK,
        draws=2,
        seed=0,
    )


def test_attacked_images_are_measured_undefended_and_behind_the_pool(bundle: Bundle, data: LabeledImages) -> None:
    wrong = LabeledImages(data.images, (data.labels + 1) % 4, data.classes)
    assert measure(identical(bundle), data, attacked(wrong), CPU, grids=(1,), draws=2).attacked == (
        0.0,
        0.0,
    )
    assert measure(bundle, data, attacked(data), CPU, grids=(1,), draws=2).attacked == (1.0, 0.25)


def test_purifiers_that_change_every_image_cost_what_the_classifier_no_longer_knows(
    bundle: Bundle, data: LabeledImages
) -> None:
    measured = measure(bundle, data, attacked(data), CPU, grids=(2,), draws=2)

    assert measured.classifier == 1.0
    assert set(measured.purifiers.values()) == {0.25}
    assert measured.grids == {2: (0.25, 0.0)}


@pytest.fixture
def one_in_four(bundle: Bundle) -> Bundle:
    """The bundle with a pool in which one of four purifiers does something."""
    purifiers = {**identical(bundle).purifiers, "pgd-rcan": bundle.purifiers["pgd-rcan"]}
    return Bundle(bundle.manifest, bundle.classifier, purifiers)


def test_every_grid_is_measured_with_as_many_draws_an_image_as_it_has_patches(
    one_in_four: Bundle, data: LabeledImages
) -> None:
    grids = measure(one_in_four, data, attacked(data), CPU, grids=(1, 2), draws=4).grids

    untouched = {grid: (mean - 0.25) / 0.75 for grid, (mean, _) in grids.items()}
    assert untouched[1] == pytest.approx(0.75, abs=0.15)
    assert untouched[2] == pytest.approx(0.75**4, abs=0.15)


def test_every_pass_draws_afresh_from_the_seed(one_in_four: Bundle, data: LabeledImages) -> None:
    first, again, other = (
        measure(one_in_four, data, attacked(data), CPU, grids=(1,), draws=4, seed=seed) for seed in (0, 0, 1)
    )

    assert first.grids[1][1] > 0
    assert first == again
    assert first.grids != other.grids


def test_measured_attacks_are_the_same_each_time_and_go_against_the_network(data: LabeledImages) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4)).requires_grad_(False)
    strength = Attack(kind="pgd", epsilon=(8, 8), steps=(2, 2), step_size=(0.5, 0.5))

    attacked, again = (attack_images(network, data, strength, CPU) for _ in range(2))

    moved = (attacked.images.int() - data.images.int()).abs()
    assert 0 < int(moved.amax()) <= 8
    assert torch.equal(attacked.images, again.images)
    assert torch.equal(attacked.labels, data.labels)
    losses = [torch.nn.functional.cross_entropy(network(one.images / 255), data.labels) for one in (data, attacked)]
    assert losses[1] > losses[0]
