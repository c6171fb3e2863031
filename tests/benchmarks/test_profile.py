"""Where the processor time of a request goes, of a real gateway under load."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.server import running_process
from benchmarks.thread_times import ThreadTimes

PATIENCE_SECONDS = 240
ROOT = Path(__file__).parents[2]
BUSY = """
import os, threading, time
def work(seconds):
    begin = time.thread_time()
    while time.thread_time() - begin < seconds:
        pass
    time.sleep(60)
if os.fork() == 0:
    work(0.3)
threading.Thread(target=work, args=(0.2,), daemon=True).start()
work(0.1)
"""


def profile(*flags: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.profile", "--rounds", "1", "--seconds", "0.3", *flags]
    ended = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_SECONDS)
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


@pytest.mark.parametrize(
    ("networks", "who", "other"), [("threads", "threads", "processes"), ("processes", "processes", "")]
)
def test_networks_are_found_where_they_run(networks: str, who: str, other: str, bundle_folder: Path) -> None:
    told = profile("--bundle", str(bundle_folder), "--flags", f"--networks {networks}", "--defense", "puridefense")
    spending = told["this checkout"]
    for name in ("images_per_second", "mean_batch", "event_loop", "client", who):
        assert spending[name][0] > 0
    if other:
        assert spending[other][0] == 0
    assert all(floor > 0 for floor in spending["floors_ms"].values())


def test_another_checkout_takes_turns(bundle_folder: Path) -> None:
    told = profile("--bundle", str(bundle_folder), "--checkout", str(ROOT), "--checkout-flags", "--workers 1")
    assert told["other checkout"]["flags"] == "--workers 1"
    assert told["other checkout"]["images_per_second"][0] > 0


def test_every_thread_is_counted_where_it_belongs() -> None:
    with running_process([sys.executable, "-c", BUSY]) as process:
        while (times := ThreadTimes.of(process.pid)).processes < 0.3 or times.event_loop < 0.1 or times.threads < 0.2:
            assert process.poll() is None
        assert times.threads < 0.3
        assert times.since(times).total == 0
