"""A loop that does not turn any more ends its process; one that only works hard does not."""

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path

from service.heartbeat import watched

PATIENCE_SECONDS = 60
HANGS = """
import asyncio, threading
from service.heartbeat import end_process, watched
from service.logs import configure_logs

async def main() -> None:
    async with watched(end_process, beats=3, seconds=0.05):
        print("serving", flush=True)
        threading.Event().wait()  # what never comes

configure_logs()
asyncio.run(main())
"""

SERVICE = """
import asyncio, sys, threading
from pathlib import Path
from service import heartbeat, server
from service.logs import configure_logs
from service.settings import Settings

class Hanging(server.Server):
    def _opened(self, state):
        asyncio.get_running_loop().call_later(0.1, threading.Event().wait)

heartbeat.watched.__wrapped__.__defaults__ = (3, 0.05)
server.Server = Hanging
configure_logs()
server.run(Settings(bundle=Path(sys.argv[1]), port=0, device="cpu"))
"""


def test_a_process_whose_loop_hangs_ends_and_says_where_it_hung() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS], check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )

    first, last = done.stdout.splitlines()
    line = json.loads(last)
    assert (first, done.returncode) == ("serving", 1)
    assert (line["event"], line["level"]) == ("event_loop_hangs", "error")
    assert "in main" in line["stack"]


def test_the_service_is_watched(bundle_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVICE, str(bundle_folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )

    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["event"] == "event_loop_hangs"


async def test_it_is_told_when_so_many_beats_in_a_row_are_missed() -> None:
    stopped = threading.Event()
    async with watched(stopped.set, beats=3, seconds=0.02):
        assert stopped.wait(PATIENCE_SECONDS)  # holds the loop


async def test_a_loop_that_turns_now_and_then_is_alive() -> None:
    stopped = threading.Event()
    async with watched(stopped.set, beats=10_000, seconds=0.001):
        for _ in range(20):
            assert not stopped.wait(0.005)
            await asyncio.sleep(0.002)
    assert not stopped.is_set()


async def test_nobody_watches_a_loop_that_was_closed() -> None:
    stopped = threading.Event()
    async with watched(stopped.set, beats=2, seconds=0.01):
        pass
    (left,) = [[thread for thread in threading.enumerate() if thread.name == "heartbeat"]]
    for thread in left:
        thread.join(PATIENCE_SECONDS)
    assert not stopped.is_set()
