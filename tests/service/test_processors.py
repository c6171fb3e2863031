"""The processors that a process may use."""

import os
from pathlib import Path

import pytest

from service.processors import processors


@pytest.fixture(autouse=True)
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)), raising=False)


def grouped(root: Path, group: str, limit: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"0::{group}\n")
    folder = root / "sys/fs/cgroup" / group.lstrip("/")
    folder.mkdir(parents=True)
    (folder / "cpu.max").write_text(limit)
    return root


@pytest.mark.parametrize(
    ("limit", "count"),
    [("400000 100000", 4), ("150000 100000", 2), ("10000 100000", 1), ("6400000 100000", 16), ("max 100000", 16)],
)
@pytest.mark.parametrize("group", ["/", "/system.slice/purigate.service"])
def test_a_quota_of_the_container_bounds_them(tmp_path: Path, group: str, limit: str, count: int) -> None:
    assert processors(grouped(tmp_path, group, limit)) == count


@pytest.mark.parametrize("limit", ["", "nonsense", "4 0", "a b"])
def test_a_quota_that_cannot_be_read_bounds_nothing(tmp_path: Path, limit: str) -> None:
    assert processors(grouped(tmp_path, "/", limit)) == 16


def test_where_there_are_no_groups_the_scheduler_alone_tells(tmp_path: Path) -> None:
    assert processors(tmp_path) == 16


def test_a_machine_that_does_not_tell_which_processors_are_ours_counts_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert processors(tmp_path) == 4
