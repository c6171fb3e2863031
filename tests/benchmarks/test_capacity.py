"""Runs of Locust, each told by its own rows."""

from pathlib import Path

import pytest
import typer

from benchmarks.capacity import Load, core


class FailingLater(Load):
    """Locust, which writes its rows at the first run and nothing afterwards."""

    def __init__(self, folder: Path) -> None:
        super().__init__("http://127.0.0.1:1", folder)
        self._folder = folder
        self.runs = 0

    def _run(self, file: str, *arguments: object) -> None:  # noqa: ARG002 - whatever it is told
        self.runs += 1
        if self.runs == 1:
            (self._folder / "run_minutes.csv").write_text("users,answered_per_second\n40,9.5\n")


def test_a_run_that_fails_is_not_told_by_the_run_before_it(tmp_path: Path) -> None:
    load = FailingLater(tmp_path)
    assert load.share(0.5, 20, 1) == {"share": "0.5", "users": "40", "answered_per_second": "9.5"}
    with pytest.raises(FileNotFoundError):
        load.share(0.8, 20, 1)


def test_the_processors_are_those_that_we_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {7, 3})
    assert [core(0), core(1)] == [3, 7]


def test_one_processor_is_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {3})
    with pytest.raises(typer.BadParameter, match="a processor each"):
        core(1)
