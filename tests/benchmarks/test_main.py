"""What `python -m benchmarks` refuses before it measures anything."""

import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.__main__ import main, read_trials
from benchmarks.machine import Machine
from benchmarks.offline import Computing
from benchmarks.record import Plan, Record, Trial
from benchmarks.systems import FASTAPI, NO_OP, PLAIN_LITSERVE, systems

ABSENT = Path("/nowhere")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes settings out of the environment of its process, which is ours here."""
    monkeypatch.setattr(os, "environ", dict(os.environ))


def record(*trials: Trial) -> Record:
    return Record(
        machine=Machine(processor="Abacus", processors=2, versions={}, commit=None, date="2026-01-01"),
        computing=Computing(bundle="toy 1", device="cpu", precision="float32", threads=1, max_batch=4),
        plan=Plan(rounds=1, seconds=1, warm_up=0, connections=1, pass_rounds=0, bodies="toys", seed=0),
        trials=trials,
    )


@pytest.mark.parametrize("arguments", [("--rounds", "0"), ("--seconds", "0"), ("--connections", "0")])
def test_a_run_without_length_is_refused(arguments: tuple[str, ...]) -> None:
    app = typer.Typer()
    app.command()(main)
    ended = CliRunner().invoke(app, [*arguments, "--bundle", str(ABSENT)])
    assert ended.exit_code == 2
    assert arguments[0] in ended.output


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="has no image"):
        main(images=tmp_path, output=tmp_path / "report")


def test_a_folder_without_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="no bundle here"):
        main(bundle=ABSENT, output=tmp_path / "report")


def test_a_record_that_is_not_there_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="No such file"):
        read_trials(ABSENT, [])


def test_a_record_in_which_nothing_was_tried_is_refused(tmp_path: Path) -> None:
    record().write(tmp_path / "bench.json")
    with pytest.raises(typer.BadParameter, match="no settings were tried"):
        read_trials(tmp_path / "bench.json", [])


def test_a_record_of_settings_that_there_are_not_is_refused(tmp_path: Path) -> None:
    record(Trial(name=FASTAPI, flags=("--threads", "1000"), slices=(), chosen=True)).write(tmp_path / "bench.json")
    with pytest.raises(typer.BadParameter, match="not measured with --threads 1000 here"):
        read_trials(tmp_path / "bench.json", [FASTAPI])


def test_a_record_in_which_a_system_was_not_tried_is_refused(tmp_path: Path) -> None:
    flags = systems()[FASTAPI][1].flags
    record(Trial(name=FASTAPI, flags=flags, slices=(), chosen=True)).write(tmp_path / "bench.json")
    assert read_trials(tmp_path / "bench.json", [NO_OP, FASTAPI])
    with pytest.raises(typer.BadParameter, match="no settings of plain LitServe were tried"):
        read_trials(tmp_path / "bench.json", [FASTAPI, PLAIN_LITSERVE])
