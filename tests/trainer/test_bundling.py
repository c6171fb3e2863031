"""A bundle takes the place of another one whole or not at all, and tells where its networks and images came from."""

import errno
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

import trainer.bundling
from models.bundle import read_bundle, read_manifest
from models.bundle.manifest import WeightsFile
from models.bundle.writer import write_weights
from trainer.bundling import Bundling, count_overlap, require_place, require_same_classes
from trainer.errors import RunError
from trainer.images import LabeledImages
from trainer.loop import Loop
from trainer.recipe import check_recipe
from trainer.run import Run

CPU = torch.device("cpu")
SELECTION = ("halo = 1", "halo = 1\nselection = { keep = 2, most_lost = 1.0 }")
MakeBundling = Callable[..., Bundling]


@pytest.fixture(scope="module")
def make_bundling(
    tmp_path_factory: pytest.TempPathFactory, toy_recipe: str, two_colors: LabeledImages, fabric: Fabric
) -> MakeBundling:
    """The toy recipe, trained once, with texts changed that do not decide the weights."""
    folder = tmp_path_factory.mktemp("run")

    def make(*changes: tuple[str, str]) -> Bundling:
        text = toy_recipe
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        run = Run(check_recipe(tomllib.loads(text), "toy"), folder, Loop(fabric), print)
        return Bundling(run, CPU, two_colors, two_colors.spread(6))

    bundling = make()
    bundling.run.train_classifier(two_colors)
    bundling.run.train_pool(two_colors)
    return make


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def output(make_bundling: MakeBundling, tmp_path: Path) -> Path:
    """A bundle that is there already."""
    make_bundling().write(tmp_path / "bundle")
    return tmp_path / "bundle"


def fill_the_disk(folder: Path, name: str, network: nn.Module) -> WeightsFile:
    """Writes the classifier and no more."""
    if name != "classifier":
        raise OSError(errno.ENOSPC, "No space left on device")
    return write_weights(folder, name, network)


def fail(*_: object) -> None:
    raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    ("part", "broken"), [("write_weights", fill_the_disk), ("measure_diversity", fail), ("attack_images", fail)]
)
def test_a_bundle_that_cannot_be_written_or_measured_leaves_the_one_that_is_there(
    make_bundling: MakeBundling,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    broken: Callable[..., object],
) -> None:
    before = contents(output)
    monkeypatch.setattr(trainer.bundling, part, broken)

    with pytest.raises((OSError, RuntimeError)):
        make_bundling(('name = "toy"', 'name = "other"')).write(output)

    assert contents(output) == before
    assert read_bundle(output).manifest.name == "toy"
    assert [path.name for path in output.parent.iterdir()] == ["bundle"]


def test_a_bundle_that_cannot_be_measured_leaves_nothing_where_there_was_none(
    make_bundling: MakeBundling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.bundling, "measure_diversity", fail)

    with pytest.raises(RuntimeError):
        make_bundling().write(tmp_path / "bundle")

    assert list(tmp_path.iterdir()) == []


def test_a_purifier_that_is_no_longer_selected_leaves_no_file(make_bundling: MakeBundling, output: Path) -> None:
    make_bundling(SELECTION).write(output)

    kept = read_bundle(output).purifiers
    assert len(kept) == 2
    assert contents(output).keys() == {
        "bundle.json",
        "classifier.safetensors",
        *(f"{name}.safetensors" for name in kept),
    }


@pytest.mark.parametrize("name", ["notes.txt", "model.safetensors"])
def test_a_folder_of_something_else_is_refused_and_left_as_it_is(
    make_bundling: MakeBundling, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"mine")

    with pytest.raises(RunError, match=name):
        make_bundling().write(tmp_path)

    assert contents(tmp_path) == {name: b"mine"}


def test_a_bundle_with_something_else_beside_it_is_refused(output: Path) -> None:
    (output / "notes").mkdir()

    with pytest.raises(RunError, match="holds what is no part of a bundle \\(notes\\); name another folder"):
        require_place(output)


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.pt2"])
def test_weights_beside_a_bundle_that_are_not_of_it_are_refused_and_left_as_they_are(
    make_bundling: MakeBundling, output: Path, name: str
) -> None:
    (output / name).write_bytes(b"mine")
    before = contents(output)

    with pytest.raises(RunError, match=rf"holds what is no part of a bundle \({name}\); name another folder"):
        make_bundling().write(output)

    assert contents(output) == before


def test_files_beside_a_manifest_that_cannot_be_read_are_left_as_they_are(
    make_bundling: MakeBundling, output: Path
) -> None:
    (output / "bundle.json").write_text("{}")
    before = contents(output)

    with pytest.raises(RunError, match=r"bundle\.json: .*name another folder"):
        make_bundling().write(output)

    assert contents(output) == before


def test_what_a_killed_process_has_left_in_a_bundle_goes_with_it(make_bundling: MakeBundling, output: Path) -> None:
    (output / ".fgsm-edsr.safetensors.partial").write_bytes(b"half")

    make_bundling().write(output)

    assert not (output / ".fgsm-edsr.safetensors.partial").exists()


def test_a_file_in_the_place_of_the_bundle_is_refused(make_bundling: MakeBundling, tmp_path: Path) -> None:
    (tmp_path / "bundle").write_bytes(b"mine")

    with pytest.raises(RunError, match="bundle: is a file"):
        make_bundling().write(tmp_path / "bundle")

    assert contents(tmp_path) == {"bundle": b"mine"}


def test_an_empty_folder_is_a_place_for_a_bundle(make_bundling: MakeBundling, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()

    make_bundling().write(tmp_path / "bundle")

    assert read_bundle(tmp_path / "bundle").manifest.name == "toy"


def test_a_mounted_volume_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.ismount", lambda path: path == tmp_path)

    with pytest.raises(RunError, match="a mounted volume"):
        require_place(tmp_path)


def test_the_diversity_of_large_images_is_measured_on_one(
    make_bundling: MakeBundling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.bundling, "DIVERSITY_PIXELS", 12 * 12 - 1)

    measured = make_bundling().write(tmp_path / "bundle")

    assert measured.diversity
    assert measured.diversity.images == 1


def test_the_manifest_tells_of_classifier_and_surrogate_alike(make_bundling: MakeBundling, output: Path) -> None:
    recipe = make_bundling().run.recipe
    told: Any = read_manifest(output).provenance["networks"]

    assert recipe.surrogate
    assert told == {
        "classifier": {**recipe.classifier.origin(), "history": None},
        "surrogate": {**recipe.surrogate.origin(), "history": None},
    }


def test_the_manifest_tells_that_the_surrogate_was_attacked(output: Path) -> None:
    told: Any = read_manifest(output).provenance["accuracy"]

    assert told["attacked_by"] == "surrogate"


def test_the_manifest_tells_that_the_classifier_was_attacked_where_there_is_no_surrogate(
    toy_recipe: str, two_colors: LabeledImages, fabric: Fabric, tmp_path: Path
) -> None:
    alone = toy_recipe[: toy_recipe.index("[surrogate]")] + toy_recipe[toy_recipe.index("[pool]") :]
    run = Run(check_recipe(tomllib.loads(alone), "toy"), tmp_path / "run", Loop(fabric), print)
    run.train_classifier(two_colors)
    run.train_pool(two_colors)

    measured = Bundling(run, CPU, two_colors, two_colors.spread(6)).write(tmp_path / "bundle")

    networks: Any = read_manifest(tmp_path / "bundle").provenance["networks"]
    assert measured.accuracy.attacked_by == "classifier"
    assert networks["surrogate"] is None


def test_the_manifest_counts_test_images_that_were_trained_on(output: Path) -> None:
    told: Any = read_manifest(output).provenance["data"]

    assert (told["train"]["images"], told["test"]["images"], told["test"]["overlap"]) == (64, 6, 6)


def test_only_images_that_are_the_same_to_the_last_pixel_count_as_overlap(two_colors: LabeledImages) -> None:
    images = two_colors.images[:4].clone()
    images[2, 0, 0, 0] += 1
    other = LabeledImages(images, 1 - two_colors.labels[:4], two_colors.classes)

    assert count_overlap(two_colors, other) == 3
    assert count_overlap(other, two_colors) == 3


def of_classes(*classes: str) -> LabeledImages:
    return LabeledImages(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(1).long(), classes)


@pytest.mark.parametrize(
    ("train", "test", "told"),
    [
        (("blue", "red"), ("amber", "red"), "only the training images have 'blue'; only the test images have 'amber'$"),
        (("blue", "red"), ("red",), ": only the training images have 'blue'$"),
        (("blue", "red"), ("red", "blue"), "they are in another order"),
    ],
)
def test_classes_that_only_one_set_has_are_named(train: tuple[str, ...], test: tuple[str, ...], told: str) -> None:
    with pytest.raises(RunError, match=told):
        require_same_classes(of_classes(*train), of_classes(*test))


def test_at_most_ten_classes_are_named(two_colors: LabeledImages) -> None:
    many = of_classes(*(f"class-{index:04}" for index in range(1000)))

    with pytest.raises(RunError, match=r"'class-0009' and 990 more; only the test images have 'blue', 'red'$"):
        require_same_classes(many, two_colors)
