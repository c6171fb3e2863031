"""The command trains and bundles in one go, and tells a mistake without a traceback."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import trainer.images
from models.bundle import read_bundle, read_manifest
from models.classifiers import ResNetConfig
from trainer.cli import app
from trainer.recipe import read_recipe
from trainer.run import Run

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
    for line in (
        "classifier: step 4 of 4, 0 s left, loss ",
        "surrogate: step 2 of 2, 0 s left, loss ",
        "pgd: step 2 of 2, 0 s left, edsr/l1_levels ",
        "on 10 images, in ",
        "behind pgd-rcan alone: ",
        "behind the pool, grid 2x2: ",
        "cost: classifier ",
        "nu ",
        f"{tmp_path / 'bundle'}: written",
    ):
        assert sum(told.startswith(line) for told in result.output.splitlines()) == 1
    assert [one.name for one in sorted((tmp_path / "run" / "tensorboard").iterdir())] == [
        "classifier",
        "fgsm",
        "pgd",
        "surrogate",
    ]


def test_the_steps_one_by_one_make_the_same_bundle(invoke: Invoke, tree: Path, tmp_path: Path) -> None:
    invoke("all", "--train", tree, "--test", tree, "--output", tmp_path / "whole", "--run", tmp_path / "other")
    for command in ("classifier", "pool"):
        assert invoke(command, "--train", tree).exit_code == 0
    result = invoke("bundle", "--train", tree, "--test", tree, "--output", tmp_path / "bundle")

    assert result.exit_code == 0
    whole, by_steps = read_manifest(tmp_path / "whole"), read_manifest(tmp_path / "bundle")
    assert (by_steps.classifier, by_steps.pool) == (whole.classifier, whole.pool)


def test_a_setting_goes_over_the_recipe(invoke: Invoke, tree: Path, tmp_path: Path) -> None:
    settings = ["--set", f"data.train={tree}", "--set", f"data.test={tree}", "--set", "pool.selection.keep=2"]

    result = invoke("all", *settings, "--set", "pool.selection.most_lost=1.0", "--output", tmp_path / "bundle")

    assert result.exit_code == 0
    assert len(read_bundle(tmp_path / "bundle").purifiers) == 2


def test_a_damaged_file_of_many_is_named_and_left_out(
    invoke: Invoke, tmp_path: Path, write_tree: Callable[[Path, int, int], Path]
) -> None:
    tree = write_tree(tmp_path / "images", 55, 0)
    (tree / "red" / "7.png").write_bytes(b"not an image")

    result = invoke("classifier", "--train", tree)

    assert result.exit_code == 0
    assert f"train images: {Path('red', '7.png')} is damaged and left out" in result.output


def test_many_damaged_files_stop_all_before_anything_is_trained(invoke: Invoke, tree: Path, tmp_path: Path) -> None:
    (tree / "red" / "broken.png").write_bytes(b"not an image")

    assert_told(invoke("classifier", "--train", tree), "1 of 11 files are damaged", "broken.png")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["classifier", "pool"])
def test_a_missing_folder_of_images_is_told(invoke: Invoke, tmp_path: Path, command: str) -> None:
    assert_told(invoke(command, "--train", tmp_path / "nowhere"), "nowhere")


def test_a_folder_without_classes_is_told(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    assert_told(invoke("classifier", "--train", tmp_path / "empty"), "empty", "class folder")


def test_a_bundle_before_the_training_is_told(invoke: Invoke, tree: Path, tmp_path: Path) -> None:
    result = invoke("bundle", "--train", tree, "--test", tree, "--output", tmp_path / "bundle")

    assert_told(result, "classifier.ckpt: not trained yet")


def test_a_bundle_without_test_images_is_told(invoke: Invoke, tree: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "toy.toml"
    recipe.write_text(recipe.read_text().replace('test = "test"\n', ""))

    assert_told(invoke("all", "--train", tree, "--output", tmp_path / "bundle"), "data.test, or with --test")
    assert not (tmp_path / "run").exists()


def test_test_images_of_other_classes_are_told_before_anything_is_trained(
    invoke: Invoke, tree: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tree, other)
    (other / "blue").rename(other / "green")

    result = invoke("all", "--train", tree, "--test", other, "--output", tmp_path / "bundle")

    assert_told(result, "blue", "green")
    assert not (tmp_path / "run").exists()


def test_images_that_do_not_fit_in_memory_in_every_process_are_told_before_another_is_started(
    invoke: Invoke, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.images, "memory", lambda: 4 * 20 * 3 * 12 * 12)

    result = invoke("all", "--train", tree, "--test", tree, "--output", tmp_path / "bundle", "--processes", 4)

    assert_told(result, "20 images of 12x12 need ", " in each of 4 processes, ", "take fewer images")
    assert not (tmp_path / "run").exists()


def test_a_start_that_the_pool_cannot_have_is_told_before_the_classifier_is_trained(
    invoke: Invoke, tree: Path, tmp_path: Path
) -> None:
    settings = ["--set", "pool.training.start=nowhere"]

    assert_told(invoke("all", "--train", tree, "--test", tree, *settings, "--output", tmp_path / "bundle"), "nowhere")
    assert not (tmp_path / "run").exists()


def test_the_classifier_is_trained_whatever_the_pool_of_the_folder_is(invoke: Invoke, tree: Path) -> None:
    invoke("classifier", "--train", tree)
    invoke("pool", "--train", tree)

    assert invoke("classifier", "--train", tree, "--set", "pool.training.steps=3").exit_code == 0
    assert_told(invoke("pool", "--train", tree, "--set", "pool.training.steps=3"), "pool.steps was 2 and is 3")


def test_a_run_is_named_after_its_recipe(tree: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe_file.parent)

    done = CliRunner().invoke(
        app, ["classifier", "--recipe", str(recipe_file), "--train", str(tree), "--device", "cpu"]
    )

    assert done.exit_code == 0
    assert (recipe_file.parent / "runs" / "toy" / "classifier.ckpt").exists()


def test_an_unknown_recipe_is_told_with_those_that_there_are(invoke: Invoke, tree: Path) -> None:
    assert_told(invoke("classifier", "--train", tree, "--recipe", "cifar11"), "cifar11", "cifar10-resnet18")


def test_a_mistake_in_a_recipe_is_told_by_its_key(invoke: Invoke, tree: Path, recipe_file: Path) -> None:
    recipe_file.write_text(recipe_file.read_text().replace("halo", "hallo"))

    assert_told(invoke("classifier", "--train", tree), "toy.toml", "pool.hallo")


def test_a_mistake_in_a_setting_is_told(invoke: Invoke, tree: Path) -> None:
    assert_told(invoke("classifier", "--train", tree, "--set", "pool.grid"), "--set pool.grid: not of the form")


def test_test_images_beside_a_recipe_without_folders_are_refused(tree: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["all", "--recipe", "cifar10-resnet18", "--test", str(tree), "--output", str(tmp_path / "bundle")]
    )

    assert_told(result, "--test needs --train beside it")


def test_folders_keep_the_classes_and_limits_of_the_recipe(invoke: Invoke, tree: Path, tmp_path: Path) -> None:
    settings = ["--set", 'data.labels=["red", "blue"]', "--set", "data.per_class=4"]

    result = invoke("all", "--train", tree, "--test", tree, *settings, "--output", tmp_path / "bundle")

    assert result.exit_code == 0
    manifest = read_manifest(tmp_path / "bundle")
    assert manifest.labels == ("red", "blue")
    data = manifest.provenance["data"]
    assert isinstance(data, dict)
    train, test = data["train"], data["test"]
    assert isinstance(train, dict)
    assert isinstance(test, dict)
    assert (train["images"], test["images"]) == (8, 10)


def test_an_output_that_cannot_be_written_is_told(invoke: Invoke, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert_told(invoke("all", "--train", tree, "--test", tree, "--output", tmp_path / "file"), "file")


def test_a_run_folder_that_cannot_be_written_is_told(invoke: Invoke, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert_told(invoke("classifier", "--train", tree, "--run", tmp_path / "file"), "file")


def test_a_device_that_is_not_there_is_told(invoke: Invoke, tree: Path) -> None:
    assert_told(invoke("classifier", "--train", tree, "--device", "gpu"), "device gpu: ")


def test_fewer_images_than_a_batch_are_told(invoke: Invoke, tree: Path) -> None:
    result = invoke("classifier", "--train", tree, "--set", "classifier.training.batch_size=128")

    assert_told(result, "classifier: 10 images are fewer than a batch of 128")


def test_a_run_of_another_recipe_is_told_with_what_differs(invoke: Invoke, tree: Path) -> None:
    invoke("classifier", "--train", tree)

    result = invoke("all", "--train", tree, "--test", tree, "--set", "classifier.seed=7", "--output", "nowhere")

    assert_told(result, "belongs to another training: classifier.seed was 0 and is 7", "Name another --run folder")


def test_a_damaged_checkpoint_is_told(invoke: Invoke, tree: Path, tmp_path: Path) -> None:
    invoke("classifier", "--train", tree)
    (tmp_path / "run" / "classifier.ckpt").write_bytes(b"")

    assert_told(invoke("classifier", "--train", tree), "classifier.ckpt: damaged", "remove it to train anew")


def test_a_training_that_diverges_is_told(invoke: Invoke, tree: Path) -> None:
    settings = ["--set", "classifier.training.peak_learning_rate=1e30", "--precision", "32-true"]

    assert_told(invoke("classifier", "--train", tree, *settings), "classifier: ", "the last checkpoint is from before")


def test_an_interrupt_from_the_keyboard_tells_how_to_go_on(
    invoke: Invoke, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "train_classifier", interrupt)

    result = invoke("classifier", "--train", tree)

    assert result.exit_code == 130
    assert result.stderr == "interrupted; the same command goes on from the last checkpoint\n"


def test_init_writes_a_recipe_that_leads_to_a_bundle(tree: Path, tmp_path: Path) -> None:
    written = tmp_path / "mine.toml"
    images = ["--train", str(tree), "--test", str(tree), "--size", "12"]

    result = CliRunner().invoke(app, ["init", str(written), *images])

    assert result.exit_code == 0
    assert f"purigate-train all --recipe {written} --output bundles/mine" in result.output
    small = ResNetConfig(width=8, blocks=(1, 1, 1, 1)).model_dump_json().replace(":", "=")
    settings = [
        "pool.training.steps=1",
        "pool.training.adversarial=2",
        "pool.training.clean=2",
        "pool.training.guidance.images=2",
        "pool.training.noise.images=2",
        *(f"{name}.architecture={small}" for name in ("classifier", "surrogate")),
        *(f"{name}.training.batch_size=4" for name in ("classifier", "surrogate")),
        *(f"{name}.training.phases=[{{epochs=1, resolution=12}}]" for name in ("classifier", "surrogate")),
    ]
    options = [part for setting in settings for part in ("--set", setting)]
    run = ["--run", str(tmp_path / "run"), "--device", "cpu", "--output", str(tmp_path / "bundle")]
    assert CliRunner().invoke(app, ["all", "--recipe", str(written), *run, *options]).exit_code == 0
    assert len(read_bundle(tmp_path / "bundle").purifiers) == 12


def test_init_does_not_write_over_a_recipe(recipe_file: Path, tree: Path) -> None:
    before = recipe_file.read_text()

    result = CliRunner().invoke(
        app, ["init", str(recipe_file), "--train", str(tree), "--test", str(tree), "--size", "12"]
    )

    assert_told(result, "toy.toml is there already")
    assert recipe_file.read_text() == before


def test_init_with_what_makes_no_recipe_writes_nothing(tree: Path, tmp_path: Path) -> None:
    written = tmp_path / "mine.toml"
    images = ["--train", str(tree), "--test", str(tree), "--size", "12", "--classifier", "mine.pt"]

    assert_told(CliRunner().invoke(app, ["init", str(written), *images]), "--architecture")
    assert not written.exists()


def test_init_takes_a_program(tree: Path, tmp_path: Path) -> None:
    written = tmp_path / "mine.toml"
    images = ["--train", str(tree), "--test", str(tree), "--size", "64", "--classifier", "mine.pt2"]

    assert CliRunner().invoke(app, ["init", str(written), *images]).exit_code == 0
    assert read_recipe(str(written)).classifier.weights == Path("mine.pt2")


def test_the_images_of_a_recipe_become_class_folders(tree: Path, recipe_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "written"
    settings = ["--set", f"data={{kind='folder',train='{tree}',test='{tree}'}}"]

    done = CliRunner().invoke(
        app,
        [
            "images",
            str(output),
            "--recipe",
            str(recipe_file),
            *settings,
            "--split",
            "train",
            "--skip",
            "1",
            "--per-class",
            "2",
        ],
    )

    assert done.exit_code == 0, done.output
    classes = sorted(one.name for one in tree.iterdir())
    assert sorted(one.name for one in output.iterdir()) == classes
    assert {tuple(sorted(file.name for file in (output / name).iterdir())) for name in classes} == {
        ("00001.png", "00002.png")
    }
    assert done.output.endswith(f"{2 * len(classes)} images\n")
