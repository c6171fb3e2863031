"""`make bench`, as short as it can be, on a small bundle."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ratios import ALONE, OFFLINE_BARE, OFFLINE_DEFENDED
from benchmarks.record import Record
from benchmarks.systems import BARE, DEFENDED, NO_OP
from benchmarks.table import markdown

PATIENCE_SECONDS = 240
BREAKING = {"PURIGATE_RANDOMNESS": "sticky", "PURIGATE_KEYS_FILE": "/nowhere/keys.json"}
"""With these settings no engine is loaded, since the secret is missing, and no gateway starts."""


def bench(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | BREAKING
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS, env=environment
    )


@pytest.fixture(scope="module")
def finished(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> "tuple[Record, Path, str]":
    """A record, its folder, and what was printed."""
    folder = tmp_path_factory.mktemp("bench")
    systems = ("--only", f"{NO_OP},{BARE},{DEFENDED}", "--device", "cpu")
    length = ("--quick", "--rounds", "2", "--seconds", "0.2", "--connections", "64", "--max-batch", "4")
    ended = bench(*systems, *length, "--bundle", bundle_folder, "--output", folder)
    assert ended.returncode == 0, ended.stderr
    return Record.read(folder / "bench.json"), folder, ended.stdout


def test_every_system_has_a_slice_in_each_round_without_failures(finished: "tuple[Record, Path, str]") -> None:
    series = {one.name: one for one in finished[0].series}
    assert list(series) == [NO_OP, ALONE, DEFENDED, OFFLINE_DEFENDED, BARE, OFFLINE_BARE]
    for one in series.values():
        assert one.failures == 0
        assert [taken.answered > 0 for taken in one.slices] == [True, True]


def test_the_gateway_tells_of_itself(finished: "tuple[Record, Path, str]") -> None:
    series = {one.name: one for one in finished[0].series}
    assert series[BARE].agreement == 1
    assert set(series[DEFENDED].stages) == {"decode", "queue", "purify", "classify"}
    for name in (BARE, DEFENDED):
        assert (series[name].mean_batch or 0) >= 1
        assert (series[name].seconds_to_ready or 0) > 0
        assert (series[name].peak_mebibytes or 0) > 100


def test_every_goal_that_needs_no_other_server_has_its_figure(finished: "tuple[Record, Path, str]") -> None:
    goals = [one.name for one in finished[0].figures if one.met is not None]
    assert goals == [
        "served over offline, undefended",
        "served over offline, defended",
        "pass of 4 purifiers over 1, batch 1, cpu",
        "pass of 4 purifiers over 1, batch 32, cpu",
        "no-op engine, one connection, p50 in ms",
    ]


def test_the_tables_are_those_of_the_record(finished: "tuple[Record, Path, str]") -> None:
    record, folder, printed = finished
    assert (folder / "bench.md").read_text() == printed == markdown(record)


def test_no_batch_is_larger_than_the_command_says_though_many_wait(finished: "tuple[Record, Path, str]") -> None:
    record, _, _ = finished
    assert record.computing.max_batch == 4
    assert [one.name for one in record.series if one.mean_batch and 1 <= one.mean_batch <= 4] == [DEFENDED, BARE]


def test_settings_in_the_environment_change_nothing(finished: "tuple[Record, Path, str]") -> None:
    """With those of `BREAKING` no engine is loaded and no gateway starts."""
    record = finished[0]
    assert record.computing.bundle.startswith("toy ")
    assert {one.name for one in record.series if one.seconds_to_ready} == {NO_OP, BARE, DEFENDED}


def test_a_system_that_there_is_not_is_refused(tmp_path: Path) -> None:
    ended = bench("--only", "bare,apache", "--output", tmp_path / "none")
    assert ended.returncode == 2
    assert "no system is called apache" in ended.stderr
    assert not (tmp_path / "none").exists()
