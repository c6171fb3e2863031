"""The command trains and bundles in one go, and tells a mistake without a traceback."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from models.bundle import read_bundle
from trainer.cli import app

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def tree(tmp_path: Path, write_tree: Callable[[Path, int, int], Path]) -> Path:
    return write_tree(tmp_path / "images", 5, 0)


@pytest.fixture
def invoke(tmp_path: Path, recipe_file: Path) -> Invoke:
    """Runs a subcommand with the toy recipe and checkpoints under `tmp_path`."""

    def run(command: str, *arguments: object) -> Result:
        options = ["--recipe", recipe_file, "--run", tmp_path / "run", "--device", "cpu", *arguments]
        return CliRunner().invoke(app, [command, *map(str, options)])

    return run


def assert_told(result: Result, *parts: str) -> None:
    """The command failed with a message of one line that holds `parts`, and nothing escaped it."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: ")
    assert all(part in result.stderr for part in parts)
    assert "Traceback" not in result.output


def test_all_makes_a_bundle_out_of_images(invoke: Invoke, tree: Path, tmp_path: Path) -> None:
    result = invoke("all", "--train", tree, "--test", tree, "--output", tmp_path / "bundle")

    assert result.exit_code == 0
    assert read_bundle(tmp_path / "bundle").manifest.labels == ("blue", "red")
    assert "on 10 images: classifier " in result.output
    assert "behind pgd-rcan alone: " in result.output
    assert "behind the pool, grid 2x2: " in result.output


def test_the_steps_one_by_one_make_the_same_bundle(invoke: Invoke, tree: Path, tmp_path: Path) -> None:
    for command in ("classifier", "pool"):
        assert invoke(command, "--train", tree).exit_code == 0
    result = invoke("bundle", "--train", tree, "--test", tree, "--output", tmp_path / "bundle")

    assert result.exit_code == 0
    assert len(read_bundle(tmp_path / "bundle").purifiers) == 4


@pytest.mark.parametrize("command", ["classifier", "pool"])
def test_a_missing_folder_of_images_is_told(invoke: Invoke, tmp_path: Path, command: str) -> None:
    assert_told(invoke(command, "--train", tmp_path / "nowhere"), "nowhere")


def test_a_folder_without_classes_is_told(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    assert_told(invoke("classifier", "--train", tmp_path / "empty"), "empty", "class folder")


def test_a_file_that_is_no_image_is_told(invoke: Invoke, tree: Path) -> None:
    (tree / "red" / "broken.png").write_bytes(b"not an image")

    assert_told(invoke("classifier", "--train", tree), "broken.png")


def test_a_bundle_before_the_training_is_told(invoke: Invoke, tree: Path, tmp_path: Path) -> None:
    result = invoke("bundle", "--train", tree, "--test", tree, "--output", tmp_path / "bundle")

    assert_told(result, "classifier.ckpt: not trained yet")


def test_an_unknown_recipe_is_told_with_those_that_there_are(invoke: Invoke, tree: Path) -> None:
    assert_told(invoke("classifier", "--train", tree, "--recipe", "cifar11"), "cifar11", "cifar10-resnet18")


def test_a_mistake_in_a_recipe_is_told_by_its_key(invoke: Invoke, tree: Path, recipe_file: Path) -> None:
    recipe_file.write_text(recipe_file.read_text().replace("halo", "hallo"))

    assert_told(invoke("classifier", "--train", tree), "toy.toml", "pool.hallo")


def test_an_output_that_cannot_be_written_is_told(invoke: Invoke, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert_told(invoke("all", "--train", tree, "--test", tree, "--output", tmp_path / "file"), "file")
