"""Bundles of random weights: whole, of the recipe's sizes, with numbers to compute on, and marked for what they are."""

import io
from itertools import combinations
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner, Result

from benchmarks.bodies import blots
from benchmarks.server import running_server
from benchmarks.untrained import main
from models.bundle import read_bundle, read_manifest
from models.device import Placement, Precision
from models.inference.preparation import classifier_for_inference
from service.cli import app

CPU = torch.device("cpu")
WRN = ("cifar10-wrn28-10", "--set", "classifier.architecture.depth=10", "--set", "classifier.architecture.widening=1")
RESNET = ("imagenet-resnet50", "--set", "classifier.architecture.name='resnet18'", "--set", "preprocessing.height=64")
SMALL = {"wrn": WRN, "resnet": (*RESNET, "--set", "preprocessing.width=64")}
"""The shipped recipes with small classifiers."""


def untrained(*arguments: str | Path) -> Result:
    command = typer.Typer()
    command.command()(main)
    return CliRunner().invoke(command, list(map(str, arguments)))


@pytest.fixture(scope="module", params=SMALL)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untrained") / "bundle"
    written = untrained(*SMALL[request.param], folder)
    assert written.exit_code == 0, written.output
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    assert untrained(*WRN, tmp_path / "small").exit_code == 0
    return tmp_path / "small"


def images(side: int) -> Tensor:
    """Smooth ones, as in a measurement, and a black, a white and a noisy one."""
    files = [np.asarray(Image.open(io.BytesIO(content))) for content, _ in blots(side, side)[:5]]
    smooth = torch.from_numpy(np.stack(files)).permute(0, 3, 1, 2) / 255
    noisy = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    return torch.cat([smooth, torch.zeros_like(noisy), torch.ones_like(noisy), noisy])


def test_it_is_whole(bundle: Path) -> None:
    verified = CliRunner().invoke(app, ["bundle", "verify", str(bundle)])
    assert verified.exit_code == 0, verified.output


def test_nobody_takes_it_for_a_defense(bundle: Path) -> None:
    shown = CliRunner().invoke(app, ["bundle", "show", str(bundle)]).output
    assert "-untrained" in shown.splitlines()[0]
    assert "this bundle defends nothing" in " ".join(shown.split())
    assert {purifier.attack for purifier in read_manifest(bundle).pool.purifiers} == {"none"}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_its_classifier_gives_numbers_that_differ_with_the_image(bundle: Path, precision: Precision) -> None:
    read = read_bundle(bundle)
    classifier = classifier_for_inference(read.classifier, Placement(CPU, precision))
    with torch.inference_mode():
        logits = classifier(images(read.manifest.preprocessing.height))
    assert logits.isfinite().all()
    assert logits.std(dim=0).mean() > 0.1


def test_its_purifiers_change_pixels_by_a_few_levels_each_in_its_own_way(bundle: Path) -> None:
    read = read_bundle(bundle)
    seen = images(read.manifest.preprocessing.height)
    with torch.inference_mode():
        purified = torch.stack([purifier(seen) for purifier in read.purifiers.values()])
    levels = 255 * (purified - seen).abs().mean(dim=(1, 2, 3, 4))
    assert ((levels > 0.1) & (levels < 5)).all()
    assert not any(one.equal(other) for one, other in combinations(purified, 2))


def test_it_has_the_pool_of_its_recipe(small: Path) -> None:
    manifest = read_manifest(small)
    assert (manifest.name, len(manifest.labels)) == ("cifar10-wrn28-10-untrained", 10)
    assert (manifest.pool.grid, manifest.pool.halo, len(manifest.pool.purifiers)) == (2, 2, 12)


def test_a_pool_that_would_be_selected_has_as_many_purifiers(tmp_path: Path) -> None:
    assert untrained(*WRN, "--set", "pool.selection.keep=3", tmp_path / "bundle").exit_code == 0
    assert len(read_manifest(tmp_path / "bundle").pool.purifiers) == 3


def test_a_pool_that_would_start_from_a_bundle_needs_none(tmp_path: Path) -> None:
    assert untrained(*WRN, "--set", "pool.training.start=nowhere", tmp_path / "bundle").exit_code == 0


def test_the_same_recipe_gives_the_same_weights(small: Path, tmp_path: Path) -> None:
    assert untrained(*WRN, tmp_path / "again").exit_code == 0
    once, again = (read_manifest(folder) for folder in (small, tmp_path / "again"))
    assert (once.classifier, once.pool) == (again.classifier, again.pool)


@pytest.mark.parametrize(
    ("arguments", "classes"),
    [((), 1000), (("--set", "data.labels=['a', 'b', 'c']"), 3), (("--classes", "7"), 7)],
)
def test_there_are_as_many_classes_as_are_named_or_as_imagenet_has(
    arguments: tuple[str, ...], classes: int, tmp_path: Path
) -> None:
    assert untrained(*SMALL["resnet"], *arguments, tmp_path / "bundle").exit_code == 0
    assert len(read_manifest(tmp_path / "bundle").labels) == classes


def test_a_program_is_refused(tmp_path: Path) -> None:
    exported = ("--set", "classifier.architecture={ kind = 'exported' }", "--set", "classifier.weights=mine.pt2")
    refused = untrained("imagenet-resnet50", *exported, tmp_path / "bundle")
    assert refused.exit_code != 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert untrained(*WRN, tmp_path).exit_code != 0
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_it_is_served(small: Path) -> None:
    content, media_type = blots(32, 32)[0]
    with running_server("--bundle", str(small), "--device", "cpu") as server:
        answer = httpx.post(
            f"{server.url}/classify", content=content, headers={"Content-Type": media_type}, timeout=60
        ).json()
    assert answer["bundle"]["name"] == "cifar10-wrn28-10-untrained"
    assert answer["label"] == f"class {answer['index']}"
