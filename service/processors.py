"""How many processors this process may use: those that the scheduler gives it, within the quota of its container."""

import math
import os
from pathlib import Path

ROOT = Path("/")
UNIFIED = "0::"


def processors(root: Path = ROOT) -> int:
    """The number, at least 1; the smaller of both where there is a quota (cgroup v2), rounded up.

    Args:
        root: of the file system that tells of the quota.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(root)
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def _quota(root: Path) -> float | None:
    """Seconds of processors in a second that the group of this process may take; nothing if there is no limit."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
        (group,) = (line.removeprefix(UNIFIED) for line in groups if line.startswith(UNIFIED))
        share, period = (root / "sys/fs/cgroup" / group.lstrip("/") / "cpu.max").read_text().split()
        return None if share == "max" else int(share) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # another system, or another version of groups
        return None
