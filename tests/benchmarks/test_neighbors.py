"""What others do on the machine is told apart from what we do, by what the kernel tells."""

import os
from pathlib import Path

import pytest

from benchmarks.neighbors import Neighbors

TICKS = os.sysconf("SC_CLK_TCK")


class Kernel:
    """Tells seconds as `/proc` does; also the clock."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def machine(self, *, busy: float, idle: float, stolen: float = 0, elsewhere: float = 0) -> None:
        """Times since the machine started: of processors 0 and 1, which share them evenly, and of another one.

        The last two columns are in the first two, too.
        """
        lines = ["cpu  " + self._columns(busy + elsewhere, idle, stolen)]
        lines += [f"cpu{number} " + self._columns(busy / 2, idle / 2, stolen / 2) for number in (0, 1)]
        lines += ["cpu11 " + self._columns(elsewhere, 0, 0), "intr 5 4 3"]
        (self.proc / "stat").write_text("\n".join(lines))

    def _columns(self, busy: float, idle: float, stolen: float) -> str:
        return " ".join(str(round(one * TICKS)) for one in (busy, 0, 0, idle, 0, 0, 0, stolen, busy, 0))

    def process(self, pid: int, parent: int, spent: float) -> None:
        (self.proc / str(pid)).mkdir(exist_ok=True)
        user, system = round(spent * TICKS), 0
        line = f"{pid} (a ) name) S {parent} 1 1 0 0 0 0 0 0 0 {user} {system} 0 0"
        (self.proc / str(pid) / "stat").write_text(line)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    kernel = Kernel(tmp_path)
    kernel.machine(busy=1000, idle=1000)
    kernel.process(os.getpid(), 1, 100)
    kernel.process(2, os.getpid(), 100)
    kernel.process(3, 2, 100)
    kernel.process(4, 1, 100)
    return kernel


def test_what_we_and_our_children_do_is_not_others(kernel: Kernel) -> None:
    neighbors = Neighbors({0, 1}, kernel.proc, kernel)
    kernel.now += 10
    kernel.machine(busy=1020, idle=1000)
    kernel.process(os.getpid(), 1, 101)
    kernel.process(2, os.getpid(), 109)
    kernel.process(3, 2, 110)
    assert neighbors.cores() == 0


def test_what_is_left_are_others(kernel: Kernel) -> None:
    neighbors = Neighbors({0, 1}, kernel.proc, kernel)
    kernel.now += 10
    kernel.machine(busy=1018, idle=1002)
    kernel.process(3, 2, 103)
    kernel.process(4, 1, 115)
    assert neighbors.cores() == pytest.approx(1.5)


def test_what_the_host_takes_are_others(kernel: Kernel) -> None:
    neighbors = Neighbors({0, 1}, kernel.proc, kernel)
    kernel.now += 10
    kernel.machine(busy=1000, idle=1000, stolen=5)
    assert neighbors.cores() == pytest.approx(0.5)


def test_what_is_done_on_processors_that_are_not_ours_does_not_matter(kernel: Kernel) -> None:
    neighbors = Neighbors({0, 1}, kernel.proc, kernel)
    kernel.now += 10
    kernel.machine(busy=1000, idle=1000, elsewhere=10)
    assert neighbors.cores() == 0
