"""Turns, sleep, and whether two classifiers say the same."""

import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from benchmarks.bodies import blots
from benchmarks.client import Client, Told
from benchmarks.offline import Expected
from benchmarks.rounds import agree, serving, take_turns
from benchmarks.server import processes
from benchmarks.slices import Slice
from benchmarks.systems import NO_OP, Served, System, systems


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def counting(name: str, turns: list[str]) -> Callable[[], Slice]:
    def measure() -> Slice:
        turns.append(name)
        return Slice(answered=0, per_second=len(turns))

    return measure


def test_every_measure_has_a_slice_in_each_round_and_every_other_round_goes_backwards() -> None:
    turns: list[str] = []
    told: list[str] = []
    measures = {name: counting(name, turns) for name in "abc"}
    slices = take_turns(measures, 3, lambda name, _slice: told.append(name))
    assert "".join(turns) == "".join(told) == "abccbaabc"
    assert {name: [one.per_second for one in taken] for name, taken in slices.items()} == {
        "a": [1, 6, 7],
        "b": [2, 5, 8],
        "c": [3, 4, 9],
    }
    assert all(one.others is not None for taken in slices.values() for one in taken)


@pytest.mark.parametrize(
    ("told", "expected", "same"),
    [
        ((1, 0.40), (1, 0.41, 0.10), True),
        ((1, 0.44), (1, 0.41, 0.10), False),
        ((2, 0.40), (1, 0.41, 0.10), False),
        ((2, 0.40), (1, 0.41, 0.40), True),
        (None, (1, 0.41, 0.40), False),
    ],
    ids=["the same", "another score", "another class", "one of two best", "failed"],
)
def test_two_say_the_same_if_the_class_is_the_same_or_as_good_and_the_score_is_near(
    told: Told | None, expected: Expected, same: bool
) -> None:
    assert agree(told, expected) is same


def test_a_server_sleeps_but_when_it_is_asked_and_is_gone_at_the_end(bundle_folder: Path, client: Client) -> None:
    (no_op,) = systems()[NO_OP]
    with serving([no_op], Served(bundle_folder, "cpu"), blots(32, 32)) as (one,):
        assert {state(pid) for pid in processes(one.server.pid)} == {"T"}
        with one.awake():
            assert state(one.server.pid) != "T"
            assert httpx.get(f"{one.server.url}/readyz", timeout=30).is_success
        assert state(one.server.pid) == "T"
        taken = one.load(client, connections=4, seconds=0.2, warm_up=0)
        assert (taken.failed, taken.answered > 0) == ({}, True)
        assert state(one.server.pid) == "T"
        assert one.agreement(client, 4, [(0, 0.25, 0.25)] * 64) == 1
        assert one.agreement(client, 4, [(0, 0.25, 0.25)] * 32 + [(0, 0.9, 0.05)] * 32) == 0.5
        assert one.server.peak_mebibytes() >= one.server.resident_mebibytes() > 0
    assert processes(one.server.pid) == []


def test_processes_that_a_server_leaves_are_ended(bundle_folder: Path) -> None:
    child = "import subprocess, sys; subprocess.Popen(['sleep', '1000']); exec(sys.argv[1])"
    serve = "from benchmarks.noop_engine import *; sys.argv[1:2] = []; serve(NoOpEngine)"
    leaves = System("leaves", (sys.executable, "-c", child, serve))
    with serving([leaves], Served(bundle_folder, "cpu"), blots(32, 32)) as (one,):
        assert len(processes(one.server.pid)) == 2
    assert processes(one.server.pid) == []


def test_a_server_that_ends_is_named(bundle_folder: Path) -> None:
    broken = System("broken", (sys.executable, "-c", "raise SystemExit(3)"))
    with (
        pytest.raises(RuntimeError, match=r"SystemExit.*exit status is 3"),
        serving([broken], Served(bundle_folder, "cpu"), blots(32, 32)),
    ):
        pass
