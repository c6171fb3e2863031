"""Processes that are started for a measurement end with it, however it ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.server import processes, running_process
from benchmarks.termination import ending_on_sigterm

PATIENCE_SECONDS = 30
PARENT = """
import time
from benchmarks.server import running_process
with running_process(["sleep", "1000"]) as process:
    print(process.pid, flush=True)
    time.sleep(1000)
"""


def run_deaf(sessions: list[int]) -> None:
    """Runs what does not listen to SIGTERM, and its child, until both are there."""
    with running_process(["sh", "-c", "trap '' TERM; sleep 1000 & wait"]) as process:
        sessions.append(process.pid)
        while len(processes(process.pid)) < 2:
            time.sleep(0.01)


def test_sigterm_ends_what_was_started() -> None:
    command = [sys.executable, "-c", PARENT]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as parent:
        assert parent.stdout
        session = int(parent.stdout.readline())
        assert processes(session)
        parent.terminate()
        assert parent.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
    assert processes(session) == []


def test_afterwards_sigterm_does_what_it_did_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ending_on_sigterm(), pytest.raises(SystemExit):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_another_thread_starts_processes_too() -> None:
    sessions = []

    def start() -> None:
        with running_process(["sleep", "1000"]) as process:
            sessions.append(process.pid)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert [processes(session) for session in sessions] == [[]]


def test_a_process_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.server.STOP_SECONDS", 0.2)
    sessions: list[int] = []
    with pytest.raises(subprocess.TimeoutExpired):
        run_deaf(sessions)
    assert [processes(session) for session in sessions] == [[]]
