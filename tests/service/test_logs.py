"""What a deployment writes to its log; in a process of its own, since it is set up once a process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import logging
import structlog
from service.logs import configure_logs

def fail(key):
    raise LookupError("what went wrong")

configure_logs()
log = structlog.get_logger()
with structlog.contextvars.bound_contextvars(request_id="r1"):
    log.info("request", status=200, path="/a\\nb")
    logging.getLogger("uvicorn.error").info("started %s", "well")
    try:
        fail(key="pg_secret")
    except LookupError:
        log.exception("internal_error")
log.debug("too much")
"""
LINES_OF_THREADS = 500
THREADS = """
import logging, sys, threading
import structlog
from service.logs import configure_logs

configure_logs()

def write(log, who):
    for number in range(int(sys.argv[1])):
        log.info(f"{who} {number}")

writers = [
    threading.Thread(target=write, args=(structlog.get_logger(), "ours")),
    threading.Thread(target=write, args=(logging.getLogger("library"), "theirs")),
]
for writer in writers:
    writer.start()
for writer in writers:
    writer.join()
"""
FULL_DISK = (
    PROGRAM
    + """
import os
os.write(2, b"went on")
os._exit(0)  # what the library still holds of the lines would fail once more
"""
)


@pytest.fixture(scope="module")
def output() -> str:
    program = [sys.executable, "-c", PROGRAM]
    return subprocess.run(program, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture(scope="module")
def output_of_threads() -> list[str]:
    program = [sys.executable, "-c", THREADS, str(LINES_OF_THREADS)]
    return subprocess.run(program, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()


def test_every_line_is_one_json_object_that_says_what_when_and_how_bad(lines: list[dict[str, Any]]) -> None:
    assert [sorted({"event", "level", "timestamp"} & set(line)) for line in lines] == [
        ["event", "level", "timestamp"],
    ] * 3


def test_fields_are_kept_apart(lines: list[dict[str, Any]]) -> None:
    assert (lines[0]["event"], lines[0]["status"], lines[0]["path"]) == ("request", 200, "/a\nb")


def test_libraries_write_the_same_lines(lines: list[dict[str, Any]]) -> None:
    assert (lines[1]["event"], lines[1]["level"]) == ("started well", "info")


def test_every_line_of_a_request_bears_its_id(lines: list[dict[str, Any]]) -> None:
    assert [line.get("request_id") for line in lines] == ["r1"] * 3


def test_a_failure_is_told_with_its_kind_and_its_message(lines: list[dict[str, Any]]) -> None:
    assert "LookupError" in json.dumps(lines[2])
    assert "what went wrong" in json.dumps(lines[2])


def test_a_failure_does_not_tell_what_the_variables_held(output: str) -> None:
    assert "pg_secret" not in output


def test_what_is_only_for_debugging_is_left_out(output: str) -> None:
    assert "too much" not in output


def test_a_full_disk_stops_nothing() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", FULL_DISK], stdout=full, stderr=subprocess.PIPE, timeout=60, check=True
        )
    assert ended.stderr.endswith(b"went on")


def test_lines_of_threads_stay_whole(output_of_threads: list[str]) -> None:
    assert sorted(json.loads(line)["event"] for line in output_of_threads) == sorted(
        f"{who} {number}" for who in ("ours", "theirs") for number in range(LINES_OF_THREADS)
    )
