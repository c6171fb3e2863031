"""The memory of the machine, or what the container that this process runs in may use of it."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
UNIFIED = ("sys/fs/cgroup", "memory.max")
FIRST_VERSION = ("sys/fs/cgroup/memory", "memory.limit_in_bytes")


def memory(root: Path = ROOT) -> int:
    """Bytes: those of the machine, or the smallest limit of a control group (version 1 or 2) around this process.

    Args:
        root: of the file system that tells of the limits.
    """
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    """Of the groups of this process and of all around those; in a container only the outermost may be there to see."""
    for folder, name, group in _groups(root):
        for part in (group, *group.parents):
            try:
                yield int((root / folder / part.relative_to("/") / name).read_text())
            except (OSError, ValueError):  # no such group here, or "max"
                continue


def _groups(root: Path) -> Iterator[tuple[str, str, PurePosixPath]]:
    """The groups that may limit memory: where they lie, the file that tells the limit, and their path there."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            yield *UNIFIED, PurePosixPath(group)
        elif "memory" in controllers.split(","):
            yield *FIRST_VERSION, PurePosixPath(group)
