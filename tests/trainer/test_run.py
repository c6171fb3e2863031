"""A whole run, from images on disk to a bundle that can be served."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from models.bundle import Bundle, read_bundle, read_manifest
from models.preprocessing import Preprocessing
from trainer.accuracy import Accuracy
from trainer.errors import RunError
from trainer.images import LabeledImages, read_image_folder
from trainer.recipe import Recipe, read_recipe
from trainer.run import Run, fingerprint

CPU = torch.device("cpu")


@dataclass
class Finished:
    """A run that went through all steps."""

    run: Run
    train: LabeledImages
    test: LabeledImages
    output: Path
    accuracy: Accuracy
    lines: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, toy_recipe: str) -> Recipe:
    path = tmp_path_factory.mktemp("recipe") / "toy.toml"
    path.write_text(toy_recipe)
    return read_recipe(str(path))


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, write_tree: Callable[[Path, int, int], Path]
) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    train = read_image_folder(write_tree(folder / "train", 6, 0), Preprocessing(resize=12, height=12, width=12))
    test = read_image_folder(write_tree(folder / "test", 4, 1), Preprocessing(resize=12, height=12, width=12))
    lines: list[str] = []
    run = Run(recipe, folder / "run", CPU, lines.append)
    run.train_classifier(train)
    run.train_pool(train)
    accuracy = run.write_bundle(folder / "bundle", train, test)
    return Finished(run, train, test, folder / "bundle", accuracy, lines)


@pytest.fixture(scope="module")
def bundle(finished: Finished) -> Bundle:
    return read_bundle(finished.output)


def test_the_bundle_has_the_classes_of_the_training_images(bundle: Bundle) -> None:
    assert bundle.manifest.labels == ("blue", "red")
    assert bundle.classifier(torch.rand(2, 3, 12, 12)).shape == (2, 2)


def test_the_bundle_has_a_purifier_for_each_attack_and_architecture(bundle: Bundle) -> None:
    assert list(bundle.purifiers) == ["fgsm-edsr", "fgsm-rcan", "pgd-edsr", "pgd-rcan"]
    assert [purifier.attack for purifier in bundle.manifest.pool.purifiers] == ["fgsm", "fgsm", "pgd", "pgd"]


def test_the_bundle_is_served_as_the_recipe_says(bundle: Bundle, recipe: Recipe) -> None:
    manifest = bundle.manifest

    assert manifest.name == "toy"
    assert manifest.preprocessing == recipe.preprocessing
    assert manifest.classifier.normalization == recipe.normalization
    assert (manifest.pool.grid, manifest.pool.halo) == (2, 1)


def test_the_purifiers_were_trained(bundle: Bundle) -> None:
    images = torch.rand(1, 3, 12, 12)

    with torch.inference_mode():
        assert not any(torch.equal(purifier(images), images) for purifier in bundle.purifiers.values())


def test_the_bundle_holds_the_classifier_that_was_trained_last(finished: Finished, bundle: Bundle) -> None:
    checkpoint = torch.load(finished.run.folder / "classifier.ckpt", weights_only=True)["network"]
    served = bundle.classifier.state_dict()

    assert served.keys() == checkpoint.keys()
    for name, tensor in checkpoint.items():
        torch.testing.assert_close(served[name], tensor, rtol=1e-3, atol=1e-6)


def test_the_bundle_tells_its_accuracy(finished: Finished, bundle: Bundle) -> None:
    told = bundle.manifest.provenance["accuracy"]

    assert Accuracy.model_validate(told) == finished.accuracy
    assert finished.accuracy.images == len(finished.test) == 8
    assert set(finished.accuracy.purifiers) == set(bundle.purifiers)
    assert bundle.manifest.pool.grid in finished.accuracy.grids


def test_the_bundle_tells_where_it_came_from(finished: Finished, bundle: Bundle, recipe: Recipe) -> None:
    provenance = bundle.manifest.provenance

    assert Recipe.model_validate(provenance["recipe"]) == recipe
    assert provenance["training_images"] == 12
    assert provenance["training_data_sha256"] == fingerprint(finished.train)
    assert provenance["torch"] == torch.__version__


def test_every_epoch_and_attack_is_reported(finished: Finished) -> None:
    for start in (
        "classifier: epoch 1 of 2",
        "classifier: epoch 2 of 2",
        "surrogate: epoch 1 of 1",
        "fgsm: step 2 of 2",
        "pgd: step 2 of 2",
    ):
        assert sum(line.startswith(start) for line in finished.lines) == 1


def test_a_finished_step_is_not_trained_again(finished: Finished) -> None:
    reported = len(finished.lines)

    finished.run.train_classifier(finished.train)
    finished.run.train_pool(finished.train)

    assert len(finished.lines) == reported


def test_the_same_recipe_and_images_give_the_same_bundle(finished: Finished, tmp_path: Path) -> None:
    run = Run(finished.run.recipe, tmp_path / "run", CPU, print)
    run.train_classifier(finished.train)
    run.train_pool(finished.train)
    run.write_bundle(tmp_path / "bundle", finished.train, finished.test)

    first, second = read_manifest(finished.output), read_manifest(tmp_path / "bundle")
    assert second.classifier == first.classifier
    assert second.pool == first.pool


def test_no_bundle_is_written_before_the_classifier_is_trained(
    recipe: Recipe, two_colors: LabeledImages, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"classifier\.ckpt: not trained yet"):
        Run(recipe, tmp_path / "run", CPU, print).write_bundle(tmp_path / "bundle", two_colors, two_colors)
    assert not (tmp_path / "bundle" / "bundle.json").exists()


def test_no_bundle_is_written_before_the_pool_is_trained(finished: Finished, tmp_path: Path) -> None:
    run = Run(finished.run.recipe, tmp_path / "run", CPU, print)
    run.train_classifier(finished.train)

    with pytest.raises(RunError, match=r"surrogate\.ckpt: not trained yet"):
        run.write_bundle(tmp_path / "bundle", finished.train, finished.test)
    assert not (tmp_path / "bundle" / "bundle.json").exists()


def test_equal_data_have_one_fingerprint(two_colors: LabeledImages) -> None:
    copy = LabeledImages(two_colors.images.clone(), two_colors.labels.clone(), two_colors.classes)

    assert fingerprint(copy) == fingerprint(two_colors)


@pytest.mark.parametrize("change", ["pixel", "label", "order"])
def test_any_change_of_the_data_changes_their_fingerprint(two_colors: LabeledImages, change: str) -> None:
    images, labels = two_colors.images.clone(), two_colors.labels.clone()
    if change == "pixel":
        images[5, 2, 7, 0] ^= 1
    elif change == "label":
        labels[9] = 1 - labels[9]
    else:
        images = images.roll(2, 0)

    assert fingerprint(LabeledImages(images, labels, two_colors.classes)) != fingerprint(two_colors)
