"""Processor time of a server's threads, as the kernel counts it in nanoseconds. Linux only: it reads /proc."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.server import processes

NANO = 1e-9
PROC = Path("/proc")


@dataclass(frozen=True)
class ThreadTimes:
    """Seconds on a processor so far.

    Attributes:
        event_loop: of the first thread of the first process.
        threads: of its other threads, which decode, and compute where networks are threads.
        processes: of all threads of the other processes, which compute where networks are processes.
    """

    event_loop: float
    threads: float
    processes: float

    @classmethod
    def of(cls, session: int, proc: Path = PROC) -> "ThreadTimes":
        """Of the processes of a session, whose number is that of its first process."""
        spent = {pid: _of_threads(pid, proc) for pid in processes(session)}
        first = spent.pop(session, {})
        return cls(
            event_loop=first.pop(session, 0.0),
            threads=sum(first.values()),
            processes=sum(sum(threads.values()) for threads in spent.values()),
        )

    def since(self, before: "ThreadTimes") -> "ThreadTimes":
        """What was spent between the two."""
        return ThreadTimes(
            self.event_loop - before.event_loop, self.threads - before.threads, self.processes - before.processes
        )

    @property
    def total(self) -> float:
        """Of all."""
        return self.event_loop + self.threads + self.processes


def _of_threads(pid: int, proc: Path) -> dict[int, float]:
    """By the number of each thread; that of a process's first thread is the process's own."""
    spent = {}
    for folder in (proc / str(pid) / "task").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            spent[int(folder.name)] = int((folder / "schedstat").read_text().split()[0]) * NANO
    return spent
