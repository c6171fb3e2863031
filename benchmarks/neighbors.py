"""What others do on our processors meanwhile: all that these worked, less what this process and its children did.

Linux only: it reads /proc, to a hundredth of a second.
"""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

IDLE_FIELDS = {3, 4}
"""Of a line of `/proc/stat`: idle, and waiting for a disk. Those after the eighth are counted twice there."""
BUSY_FIELDS = 8
PARENT_FIELD, USER_FIELD, SYSTEM_FIELD = 1, 11, 12
"""Of `/proc/PID/stat` after the name, which is in brackets and may hold anything."""


class Neighbors:
    """Watches from its making on.

    Args:
        processors: numbers of those that are ours to use; what this process may use by default.
        proc: where the kernel tells.
        clock: seconds.
    """

    def __init__(
        self,
        processors: Iterable[int] | None = None,
        proc: Path = Path("/proc"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names = {f"cpu{number}" for number in processors or os.sched_getaffinity(0)}
        self._proc = proc
        self._clock = clock
        self._begin = clock()
        self._others = self._seconds_of_others()

    def cores(self) -> float:
        """How many processors others kept busy, on average, so far; what the machine's owner took from it is theirs."""
        return max(0.0, (self._seconds_of_others() - self._others) / (self._clock() - self._begin))

    def _seconds_of_others(self) -> float:
        lines = [line.split() for line in (self._proc / "stat").read_text().splitlines()]
        counted = [fields[:BUSY_FIELDS] for name, *fields in lines if name in self._names]
        busy = [int(ticks) for fields in counted for place, ticks in enumerate(fields) if place not in IDLE_FIELDS]
        return (sum(busy) - self._own_ticks()) / os.sysconf("SC_CLK_TCK")

    def _own_ticks(self) -> int:
        """Of this process and of all that came of it and are there still."""
        parents: dict[int, int] = {}
        spent: dict[int, int] = {}
        for folder in self._proc.glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                pid = int(folder.name)
                parents[pid] = int(fields[PARENT_FIELD])
                spent[pid] = int(fields[USER_FIELD]) + int(fields[SYSTEM_FIELD])

        def ours(pid: int) -> bool:
            while pid and pid != os.getpid():
                pid = parents.get(pid, 0)
            return bool(pid)

        return sum(ticks for pid, ticks in spent.items() if ours(pid))
