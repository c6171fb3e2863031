"""The command attacks the toy bundle, and tells a mistake without a traceback."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from evaluation.cli import app
from evaluation.records import read_records
from models.inference.int8_convolution import int8_problem
from tests.conftest import PURIFIERS, change_bundle, untrained_purifier, with_a_narrow_classifier

Evaluate = Callable[..., Result]


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of each of two labels of the toy bundle."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for label in ("bird", "cat"):
        (root / label).mkdir()
        for index in range(3):
            pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{index}.png")
    return root


@pytest.fixture
def evaluate(tmp_path: Path, bundle_folder: Path, tree: Path) -> Evaluate:
    def run(*arguments: object) -> Result:
        options = ["--data", tree, "--bundle", bundle_folder, "--records", tmp_path / "records", "--device", "cpu"]
        return CliRunner().invoke(app, ["robustness", *map(str, [*options, *arguments])])

    return run


def assert_told(result: Result, *parts: str) -> None:
    """The command failed with a message of one line that holds `parts`, and nothing escaped it."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: ")
    assert [part for part in parts if part not in result.stderr] == []


def test_an_attack_prints_its_three_figures_and_leaves_records(evaluate: Evaluate, tmp_path: Path) -> None:
    result = evaluate("--attack", "square", "--queries", 12, "--images", 4, "--part", 2, "--set", "p=0.3")

    assert result.exit_code == 0, result.output
    assert [line for line in ("clean", "any-hit", "confirmed", "fresh draws") if line not in result.output] == []
    first, second = read_records([tmp_path / "records"])
    assert (first.cell.served.grid, len(first.cell.served.purifiers)) == (2, 4)
    assert first.cell == second.cell
    assert first.cell.attack.model_dump()["p"] == 0.3
    assert len({outcome.index for outcome in (*first.outcomes, *second.outcomes)}) == 4


def test_a_transfer_from_a_surrogate_trained_anew_is_measured_again(
    evaluate: Evaluate, tmp_path: Path, bundle_folder: Path
) -> None:
    surrogate = Path(shutil.copytree(bundle_folder, tmp_path / "surrogate"))
    options: list[object] = ["--attack", "transfer", "--set", f"surrogate={surrogate}", "--set", "steps=1"]
    options += ["--set", "defense=puridefense", "--queries", 2, "--images", 2]
    assert evaluate(*options).exit_code == 0
    change_bundle(surrogate, {name: untrained_purifier(config) for name, config in PURIFIERS.items()})
    for _ in range(2):
        assert evaluate(*options).exit_code == 0

    assert len(read_records([tmp_path / "records"])) == 2


def test_images_added_to_the_tree_are_not_merged_with_what_was_measured_before(
    evaluate: Evaluate, tmp_path: Path, tree: Path
) -> None:
    grown = Path(shutil.copytree(tree, tmp_path / "grown"))
    options = ["--data", grown, "--queries", 2, "--part", 2, "--images"]
    assert evaluate(*options, 2).exit_code == 0
    Image.new("RGB", (32, 32)).save(grown / "cat" / "9.png")

    assert_told(evaluate(*options, 4), "in another tree")


def test_another_pool_and_grid_can_be_attacked(evaluate: Evaluate, tmp_path: Path) -> None:
    assert evaluate("--queries", 5, "--grid", 3, "--purifier", "pgd-edsr", "--purifier", "pgd-rcan").exit_code == 0

    (record,) = read_records([tmp_path / "records"])
    assert (record.cell.served.grid, record.cell.served.purifiers) == (3, ("pgd-edsr", "pgd-rcan"))


@pytest.mark.parametrize(
    ("arguments", "reasons"),
    [
        (["--attack", "triangle"], ["triangle", "square"]),
        (["--defense", "magic"], ["magic", "puridefense"]),
        (["--set", "p=2"], ["square: p"]),
        (["--set", "q=2"], ["square: q"]),
        (["--defense", "none", "--grid", "3"], ["none", "grid"]),
        (["--suite", "everything"], ["everything", "adaptive"]),
        (["--setup", "sticky"], ["--setup", "needs --url"]),
        (["--key", "secret"], ["--key", "needs --url"]),
        (["--sticky"], ["--sticky", "needs --url"]),
        (["--purifier", "bim-edsr"], ["bim-edsr"]),
        (["--data", "nowhere"], ["nowhere"]),
        (["--bundle", "nowhere"], ["nowhere"]),
        (["--device", "cuda:99"], ["cuda:99"]),
        (["--precision", "float16"], ["float16", "int8"]),
    ],
)
def test_a_mistake_is_told(evaluate: Evaluate, arguments: list[str], reasons: list[str]) -> None:
    assert_told(evaluate(*arguments), *reasons)


@pytest.mark.parametrize(
    "option",
    [
        ["--attack", "nes"],
        ["--set", "p=0.2"],
        ["--defense", "none"],
        ["--grid", "1"],
        ["--purifier", "pgd-edsr"],
        ["--epsilon", "1"],
        ["--stopping", "hit"],
    ],
    ids=lambda option: option[0],
)
def test_an_option_of_one_attack_beside_a_suite_is_told(evaluate: Evaluate, option: list[str]) -> None:
    assert_told(evaluate("--suite", "pool", *option), option[0], "a suite has its own")


@pytest.mark.skipif(int8_problem() is not None, reason=f"no int8 here: {int8_problem()}")
def test_a_classifier_that_cannot_compute_in_the_precision_is_told(
    evaluate: Evaluate, bundle_folder: Path, tmp_path: Path
) -> None:
    narrow = with_a_narrow_classifier(Path(shutil.copytree(bundle_folder, tmp_path / "narrow")))
    assert_told(evaluate("--bundle", narrow, "--precision", "int8"), "precision int8", "wide enough")


@pytest.mark.parametrize(
    ("arguments", "reasons"),
    [
        ([], ["no gateway"]),
        (["--defense", "puridefense"], ["--defense", "is of a bundle"]),
        (["--suite", "table"], ["--suite", "is of a bundle"]),
        (["--grid", "2"], ["--grid", "is of a bundle"]),
        (["--purifier", "pgd-edsr"], ["--purifier", "is of a bundle"]),
        (["--bundle", "mine"], ["--bundle", "is of a bundle"]),
        (["--device", "cpu"], ["--device", "is of a bundle"]),
        (["--precision", "float32"], ["--precision", "is of a bundle"]),
    ],
)
def test_an_option_that_a_gateway_would_not_heed_is_refused(
    tree: Path, tmp_path: Path, arguments: list[str], reasons: list[str]
) -> None:
    options = ["--data", str(tree), "--records", str(tmp_path), "--url", "http://127.0.0.1:9"]
    assert_told(CliRunner().invoke(app, ["robustness", *options, *arguments]), *reasons)


def test_a_folder_that_is_no_label_is_told(evaluate: Evaluate, tmp_path: Path) -> None:
    (tmp_path / "other" / "dragon").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "other" / "dragon" / "0.png")

    assert_told(evaluate("--data", tmp_path / "other"), "dragon")


def test_records_become_tables_and_figures(evaluate: Evaluate, tmp_path: Path, bundle_folder: Path, tree: Path) -> None:
    records = tmp_path / "records"
    assert evaluate("--queries", 5).exit_code == 0
    for command in (
        ["speed", "--bundle", bundle_folder, "--rounds", 3],
        ["diversity", "--bundle", bundle_folder, "--data", tree, "--images", 2],
    ):
        result = CliRunner().invoke(app, [*map(str, command), "--device", "cpu", "--records", str(records)])
        assert result.exit_code == 0, result.output

    told = CliRunner().invoke(app, ["table", str(records)])
    drawn = CliRunner().invoke(app, ["plot", str(records), "--output", str(tmp_path / "figures")])

    assert [one for one in ("Robust accuracy", "Time of a pass", "Diversity") if one not in told.output] == []
    assert {path.name for path in (tmp_path / "figures").iterdir()} >= {"speed-1.svg", "diversity-1.svg"}
    assert drawn.exit_code == 0


def test_speed_alone_becomes_a_table_and_a_figure_and_nothing_is_an_error(tmp_path: Path, bundle_folder: Path) -> None:
    def run(*command: object) -> Result:
        return CliRunner().invoke(app, list(map(str, command)))

    records = tmp_path / "records"
    records.mkdir()
    assert_told(run("table", records), "no records")
    assert_told(run("plot", records), "no records")
    assert (
        run("speed", "--bundle", bundle_folder, "--rounds", 3, "--device", "cpu", "--records", records).exit_code == 0
    )

    told = run("table", records)
    assert "Time of a pass" in told.output
    assert "Robust" not in told.output
    assert "speed-1.svg" in run("plot", records, "--output", tmp_path / "figures").output


def test_a_suite_goes_on_where_it_stopped(evaluate: Evaluate, tmp_path: Path) -> None:
    options = ["--suite", "table", "--queries", 3, "--images", 2]
    assert evaluate(*options).exit_code == 0
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir()}
    next(iter(done)).unlink()

    assert evaluate(*options).exit_code == 0

    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir()}
    assert len(again) == len(done) == 8 * 6
    assert sum(again[path] != done[path] for path in again) == 1
