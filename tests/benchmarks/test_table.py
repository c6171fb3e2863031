"""The tables of a record: all of them out of its JSON."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from benchmarks.machine import Machine
from benchmarks.offline import Computing
from benchmarks.passes import Pass
from benchmarks.ratios import figures
from benchmarks.record import Plan, Record, Series, Trial
from benchmarks.slices import Slice
from benchmarks.table import app, markdown

RATES = {"bare": (90, 95), "offline, bare": (110, 100), "LitServe": (50, 60)}


def slices(name: str, failed: dict[str, int]) -> tuple[Slice, ...]:
    return tuple(
        Slice(answered=1, per_second=rate, failed=failed, p50_ms=1.5, p99_ms=2.5, others=0.25) for rate in RATES[name]
    )


@pytest.fixture
def record() -> Record:
    series = (
        Series(name="bare", flags=("--defense", "none"), slices=slices("bare", {}), stages={"decode": 0.25}),
        Series(name="offline, bare", slices=slices("offline, bare", {})),
        Series(name="LitServe", slices=slices("LitServe", {"503": 2, "TimeoutError": 1}), agreement=0.5),
    )
    passes = tuple(
        Pass(device="cpu", purifiers=size, batch=1, pass_ms=(time,), whole_ms=(9,)) for size, time in ((1, 2), (12, 3))
    )
    return Record(
        machine=Machine(processor="Abacus", processors=2, versions={"torch": "9"}, commit="abc", date="2026-01-01"),
        computing=Computing(bundle="toy 1", device="cpu", precision="bfloat16", threads=2, max_batch=32),
        plan=Plan(rounds=2, seconds=1, warm_up=0.5, connections=64, pass_rounds=1, bodies="toys", seed=0),
        figures=figures({one.name: one.slices for one in series}, passes),
        series=series,
        passes=passes,
        trials=(
            Trial(name="LitServe", flags=("--workers", "1"), slices=slices("LitServe", {}), chosen=True),
            Trial(name="LitServe", flags=("--workers", "2"), slices=slices("LitServe", {}), chosen=False),
        ),
        absent=("mosec",),
        seconds=60,
    )


def test_each_figure_has_its_spread_and_whether_its_goal_is_met(record: Record) -> None:
    lines = markdown(record).splitlines()
    assert "| served over offline, undefended | 0.88 [0.82, 0.95] | 2 | at least 0.9 | **no** |" in lines
    assert "| undefended over LitServe | 1.69 [1.58, 1.80] | 2 | at least 1.2 | yes |" in lines
    assert "| pass of 12 purifiers over 1, batch 1, cpu | 1.50 [1.50, 1.50] | 1 | at most 1.1 | **no** |" in lines


def test_failures_are_shown_beside_the_rate(record: Record) -> None:
    text = markdown(record)
    assert "| LitServe | 55 [50, 60] | 1.5 | 2.5 | 6 (503, TimeoutError) |  |  |  | 50 % |" in text
    assert "| bare `--defense none` | 92 [90, 95] | 1.5 | 2.5 | 0 |  |  |  |  |" in text


def test_settings_that_were_tried_are_told_and_which_was_taken(record: Record) -> None:
    text = markdown(record)
    assert "| LitServe | `--workers 1` | 55 [50, 60] | yes |" in text
    assert "| LitServe | `--workers 2` | 55 [50, 60] |  |" in text


def test_the_head_tells_the_machine_and_what_is_missing(record: Record) -> None:
    head = markdown(record).split("\n\n| ", 1)[0]
    told = (
        "2 cores, Abacus",
        "bfloat16",
        "torch 9",
        "commit abc",
        "64 connections",
        "Others kept 0.25 of the cores busy",
    )
    for part in (*told, "Not installed: mosec."):
        assert part in head


def test_a_slice_that_others_disturbed_is_told_and_left_out(record: Record) -> None:
    bare, *others = record.series
    loud = bare.slices[0].model_copy(update={"others": 1.5})
    series = (bare.model_copy(update={"slices": (loud, bare.slices[1])}), *others)
    text = markdown(record.model_copy(update={"series": series}))
    assert "1.50 in the worst slice; 1 of 6 slices had more than 0.25 and count only where no others are left." in text
    assert "| bare `--defense none` | 95 [95, 95] |" in text


def test_the_file_has_all_that_the_tables_need(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    record.write(path)
    assert Record.read(path) == record
    printed = CliRunner().invoke(app, [str(path)])
    assert printed.output == markdown(record)


def test_another_file_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text('{"format": 2}')
    with pytest.raises(ValidationError):
        Record.read(path)
