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

    def machine(self, *, busy: float, idle: float, stolen: float = 0) -> None:
        """Times since the machine started, the last two columns of which are in the first two, too."""
        ticks = [busy, 0, 0, idle, 0, 0, 0, stolen, busy, 0]
        (self.proc / "stat").write_text(f"cpu  {' '.join(str(round(one * TICKS)) for one in ticks)}\ncpu0 0 0\n")

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
    neighbors = Neighbors(kernel.proc, kernel)
    kernel.now += 10
    kernel.machine(busy=1020, idle=1000)
    kernel.process(os.getpid(), 1, 101)
    kernel.process(2, os.getpid(), 109)
    kernel.process(3, 2, 110)
    assert neighbors.cores() == 0


def test_what_is_left_are_others(kernel: Kernel) -> None:
    neighbors = Neighbors(kernel.proc, kernel)
    kernel.now += 10
    kernel.machine(busy=1018, idle=1002)
    kernel.process(3, 2, 103)
    kernel.process(4, 1, 115)
    assert neighbors.cores() == pytest.approx(1.5)


def test_what_the_host_takes_are_others(kernel: Kernel) -> None:
    neighbors = Neighbors(kernel.proc, kernel)
    kernel.now += 10
    kernel.machine(busy=1000, idle=1000, stolen=5)
    assert neighbors.cores() == pytest.approx(0.5)
