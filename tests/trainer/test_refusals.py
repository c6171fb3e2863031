"""What the trainer refuses, and what a failed step leaves."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from models.bundle import read_bundle
from models.decoder import DecoderConfig
from models.encoders import EDSRConfig
from models.preprocessing import Preprocessing
from models.purifier import PurifierConfig
from trainer.adversary import Attack
from trainer.cli import app
from trainer.errors import RunError
from trainer.images import LabeledImages, read_image_folder
from trainer.pool import PoolTraining, PurifierTrainer
from trainer.recipe import RecipeError, read_recipe
from trainer.run import Run

CPU = torch.device("cpu")
WriteTree = Callable[[Path, int, int], Path]


def recipe(path: Path, text: str, *changes: tuple[str, str]) -> Path:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "change",
    [
        ("crop = 8", "crop = 20"),
        ("grid = 2", "grid = 13"),
        ("phases = [{ epochs = 1, resolution = 12 }]", "phases = []"),
        ("training = { batch_size = 4", "training = { warmup = 2.0, batch_size = 4"),
        ("training = { batch_size = 4", "training = { padding = 12, batch_size = 4"),
        ("fgsm = {", '"my attack" = {'),
        ("fgsm = {", '"../../x" = {'),
        ("edsr = {", '"e.dsr" = {'),
        ("epsilon = [4, 12]", "epsilon = [4, inf]"),
    ],
    ids=str,
)
def test_a_recipe_that_cannot_be_trained_is_refused_before_the_training(
    tmp_path: Path, toy_recipe: str, change: tuple[str, str]
) -> None:
    with pytest.raises(RecipeError):
        read_recipe(str(recipe(tmp_path / "toy.toml", toy_recipe, change)))


def test_fewer_images_than_a_batch_are_told(tmp_path: Path, toy_recipe: str, write_tree: WriteTree) -> None:
    path = recipe(tmp_path / "toy.toml", toy_recipe, ("batch_size = 4", "batch_size = 128"))
    tree = write_tree(tmp_path / "tree", 4, 0)

    result = CliRunner().invoke(
        app, ["classifier", "--recipe", str(path), "--train", str(tree), "--run", str(tmp_path / "run")]
    )

    assert result.stderr.startswith("error: ")


def _cli(tmp_path: Path, toy_recipe: str, tree: Path, *more: str) -> Result:
    path = recipe(tmp_path / "toy.toml", toy_recipe)
    arguments = ["classifier", "--recipe", str(path), "--train", str(tree), "--run", str(tmp_path / "run"), *more]
    return CliRunner().invoke(app, arguments)


def test_a_device_that_is_not_there_is_told(tmp_path: Path, toy_recipe: str, write_tree: WriteTree) -> None:
    assert _cli(tmp_path, toy_recipe, write_tree(tmp_path / "tree", 4, 0), "--device", "gpu").stderr.startswith(
        "error: "
    )


@pytest.fixture
def data(tmp_path: Path, write_tree: WriteTree) -> LabeledImages:
    return read_image_folder(write_tree(tmp_path / "train", 6, 0), Preprocessing(resize=12, height=12, width=12))


def run_in(folder: Path, toy_recipe: str, *changes: tuple[str, str]) -> Run:
    folder.mkdir(exist_ok=True, parents=True)
    return Run(read_recipe(str(recipe(folder / "toy.toml", toy_recipe, *changes))), folder / "run", CPU, print)


def trained(run: Run, data: LabeledImages) -> Run:
    run.train_classifier(data)
    run.train_pool(data)
    return run


def test_checkpoints_of_other_images_are_not_gone_on_with(tmp_path: Path, toy_recipe: str, data: LabeledImages) -> None:
    run = trained(run_in(tmp_path, toy_recipe), data)

    with pytest.raises(RunError):
        run.train_classifier(LabeledImages(255 - data.images, data.labels, data.classes))


def test_checkpoints_of_another_recipe_are_not_gone_on_with(
    tmp_path: Path, toy_recipe: str, data: LabeledImages
) -> None:
    trained(run_in(tmp_path, toy_recipe), data)

    with pytest.raises(RunError):
        run_in(tmp_path, toy_recipe, ("epsilon = [4, 12] }", "epsilon = [1, 2] }")).train_pool(data)


def test_a_half_trained_classifier_is_not_bundled(tmp_path: Path, toy_recipe: str, data: LabeledImages) -> None:
    class StoppedError(Exception):
        pass

    def stop(_: str) -> None:
        raise StoppedError

    run = run_in(tmp_path, toy_recipe)
    with pytest.raises(StoppedError):
        Run(run.recipe, run.folder, CPU, stop).train_classifier(data)
    run.train_pool(data)

    with pytest.raises(RunError):
        run.write_bundle(tmp_path / "bundle", data, data)


def test_a_failed_bundle_leaves_the_one_that_is_there(tmp_path: Path, toy_recipe: str, data: LabeledImages) -> None:
    trained(run_in(tmp_path / "first", toy_recipe), data).write_bundle(tmp_path / "bundle", data, data)
    second = run_in(tmp_path / "second", toy_recipe, ("seed = 0", "seed = 7"))
    second.train_classifier(data)
    with pytest.raises(RunError):
        second.write_bundle(tmp_path / "bundle", data, data)

    assert read_bundle(tmp_path / "bundle")


def test_test_images_of_other_classes_are_refused(tmp_path: Path, toy_recipe: str, data: LabeledImages) -> None:
    run = trained(run_in(tmp_path, toy_recipe), data)

    with pytest.raises(RunError):
        run.write_bundle(tmp_path / "bundle", data, LabeledImages(data.images, data.labels, ("amber", "blue")))


def test_a_bundle_is_written_where_there_is_no_git(
    tmp_path: Path, toy_recipe: str, data: LabeledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(run_in(tmp_path, toy_recipe), data)
    monkeypatch.setenv("PATH", str(tmp_path))

    run.write_bundle(tmp_path / "bundle", data, data)


def test_the_served_grid_is_measured(tmp_path: Path, toy_recipe: str, data: LabeledImages) -> None:
    run = trained(run_in(tmp_path, toy_recipe, ("grid = 2", "grid = 4")), data)

    assert 4 in run.write_bundle(tmp_path / "bundle", data, data).grids


def test_images_are_trained_on_at_the_size_that_is_served(
    tmp_path: Path, toy_recipe: str, write_tree: WriteTree
) -> None:
    path = recipe(tmp_path / "toy.toml", toy_recipe, ("height = 12\nwidth = 12", "height = 8\nwidth = 8"))
    tree = write_tree(tmp_path / "tree", 4, 0)
    from trainer.cli import _images  # noqa: PLC0415

    assert _images(tree, str(path)).images.shape[2:] == (8, 8)


def test_the_last_report_is_a_mean_even_over_fewer_steps(tmp_path: Path, two_colors: LabeledImages) -> None:
    torch.manual_seed(0)
    training = PoolTraining(
        attacks={"fgsm": Attack(kind="fgsm", epsilon=(8, 8))},
        purifiers={
            "edsr": PurifierConfig(encoder=EDSRConfig(features=4, blocks=1), decoder=DecoderConfig(hidden=(8,)))
        },
        steps=3,
        adversarial=8,
        clean=0,
        crop=8,
        peak_learning_rate=1e-9,
    )
    surrogate = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 2))
    reports: list[float] = []

    PurifierTrainer(training, "fgsm", surrogate, two_colors, CPU, 0).run(
        tmp_path / "checkpoint", lambda _, losses: reports.append(losses["edsr"]), every=2
    )

    assert reports[1] == pytest.approx(reports[0], rel=0.05)


def test_rounding_does_not_leave_the_ball() -> None:
    torch.manual_seed(0)
    images, network = torch.full((4, 3, 6, 6), 128 / 255), nn.Sequential(nn.Flatten(), nn.Linear(108, 2))

    adversarial = Attack(kind="fgsm", epsilon=(2.6, 2.6)).perturb(
        network, images, torch.zeros(4, dtype=torch.int64), torch.Generator().manual_seed(0)
    )

    assert float((255 * (adversarial - images)).abs().amax()) <= 2.601


def test_checkpoints_of_other_images_are_not_bundled(tmp_path: Path, toy_recipe: str, data: LabeledImages) -> None:
    run = trained(run_in(tmp_path, toy_recipe), data)

    with pytest.raises(RunError, match="other images"):
        run.write_bundle(tmp_path / "bundle", LabeledImages(255 - data.images, data.labels, data.classes), data)
