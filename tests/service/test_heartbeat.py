"""A loop that does not turn any more ends its process; one that only works hard does not."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from service.heartbeat import Heart, watched

PATIENCE_SECONDS = 60
HANGS = """
import asyncio, json, threading
from functools import partial
from service.heartbeat import watched
from service.last_resort import end_process

async def main() -> None:
    async with watched(partial(end_process, lambda stack: print(json.dumps(stack), flush=True)), beats=3, seconds=0.05):
        print("serving", flush=True)
        threading.Event().wait()  # what never comes

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
    assert (first, done.returncode) == ("serving", 1)
    assert "in main" in json.loads(last)


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


@pytest.mark.parametrize(("beats_every", "stops"), [(1, False), (2, False), (3, False), (4, True), (1000, True)])
def test_only_beats_missed_in_a_row_count(beats_every: int, *, stops: bool) -> None:
    stopped = threading.Event()
    heart = Heart()
    turns = 0

    class Closed(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - time does not matter
            nonlocal turns
            turns += 1
            heart.count += turns % beats_every == 0
            return turns > 50

    heart.watch(Closed(), stopped.set, beats=3, seconds=1)
    assert stopped.is_set() is stops


async def test_nobody_watches_a_loop_that_was_closed() -> None:
    stopped = threading.Event()
    async with watched(stopped.set, beats=2, seconds=0.01):
        pass
    (left,) = [[thread for thread in threading.enumerate() if thread.name == "heartbeat"]]
    for thread in left:
        thread.join(PATIENCE_SECONDS)
    assert not stopped.is_set()
