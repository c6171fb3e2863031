"""The memory that images may take is that of the container, where it has less than the machine."""

import os
from pathlib import Path

import pytest

from trainer.memory import memory

GIB = 2**30
UNLIMITED = "9223372036854771712\n"
"""What version 1 of control groups tells where there is no limit."""


@pytest.fixture(autouse=True)
def _sixteen_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 16 * GIB // 4096}.__getitem__)


def system(root: Path, groups: str, limits: dict[str, str]) -> Path:
    """A file system that tells the groups of a process and, by folder, the limits of groups."""
    files = {"proc/self/cgroup": groups} | {f"sys/fs/cgroup/{path}": limit for path, limit in limits.items()}
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return root


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": f"{4 * GIB}\n"}, 4),
        ("0::/\n", {"memory.max": "max\n"}, 16),
        ("0::/\n", {"memory.max": f"{64 * GIB}\n"}, 16),
        ("0::/a/b\n", {"a/b/memory.max": f"{4 * GIB}\n", "a/memory.max": "max\n"}, 4),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": f"{2 * GIB}\n"}, 2),
        ("5:cpu:/x\n4:memory:/a\n", {"memory/a/memory.limit_in_bytes": f"{4 * GIB}\n"}, 4),
        ("4:memory:/a\n", {"memory/memory.limit_in_bytes": UNLIMITED}, 16),
        ("4:blkio,memory:/docker/1f\n0::/\n", {"memory/memory.limit_in_bytes": f"{3 * GIB}\n"}, 3),
        ("0::/../../other\n", {}, 16),
        ("0::/\n", {"memory.max": "nonsense"}, 16),
    ],
    ids=[
        "container",
        "no limit",
        "more than there is",
        "group",
        "group around it",
        "version 1",
        "version 1 without limit",
        "version 1 in a container",
        "group out of sight",
        "damaged",
    ],
)
def test_the_smallest_limit_around_the_process_bounds_it(
    tmp_path: Path, groups: str, limits: dict[str, str], expected: int
) -> None:
    assert memory(system(tmp_path, groups, limits)) == expected * GIB


def test_where_there_are_no_groups_it_is_that_of_the_machine(tmp_path: Path) -> None:
    assert memory(tmp_path) == 16 * GIB
