"""Locust against a small gateway: the exit code says whether the thresholds held."""

import csv
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from service.keys import KeysFile

if TYPE_CHECKING:
    from tests.integration.conftest import FakeEngine, Serve, Service

ROOT = Path(__file__).parents[2]
LOCUST = str(Path(sys.executable).with_name("locust"))
PATIENCE_SECONDS = 180
SHORT = ("--users", "4", "--spawn-rate", "4", "--run-time", "3s", "--pace-seconds", "0.2")
GENEROUS = ("--max-p99-ms", "60000")
Load = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Runs locust with its reports in an empty folder; gives its exit code and what it says."""

    def run(
        service: "Service | Front", *arguments: str, file: str = "locustfile.py"
    ) -> "subprocess.CompletedProcess[str]":
        reports = ("--csv", str(tmp_path / "run"), "--html", str(tmp_path / "report.html"))
        host = f"http://127.0.0.1:{service.port}"
        command = [LOCUST, "-f", str(ROOT / "loadtest" / file), "--headless", "--only-summary", "--host", host]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PURIGATE_")}
        return subprocess.run(
            [*command, *reports, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
            env=environment,
        )

    return run


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_run_within_its_thresholds_passes_and_leaves_reports(
    real_service: "Service", load: Load, tmp_path: Path
) -> None:
    ended = load(real_service, *SHORT, *GENEROUS, "--users", "12")
    assert ended.returncode == 0, ended.stderr
    asked = {row["Name"]: int(row["Request Count"]) for row in rows(tmp_path / "run_stats.csv")}
    assert {"/classify", "/classify (form)", "/classify/batch", "/classify (attack)"} <= set(asked)
    assert (tmp_path / "report.html").stat().st_size > 0


def test_a_run_that_is_too_slow_fails_and_says_by_how_much(real_service: "Service", load: Load) -> None:
    ended = load(real_service, *SHORT, "--max-p99-ms", "0.5")
    assert ended.returncode == 1
    assert "more than 0.5 ms" in ended.stderr


@pytest.fixture
def guarded(serve: "Serve", engine: "FakeEngine", tmp_path: Path) -> tuple["Service", str]:
    """A gateway with one key, which may ask about ten images, and that key."""
    keys, secret = KeysFile().issue("alice", quota="10/day")
    keys.write(tmp_path / "keys.json")
    return serve(engine, keys_file=tmp_path / "keys.json"), secret


def test_a_run_that_is_refused_fails_unless_that_is_allowed(guarded: tuple["Service", str], load: Load) -> None:
    service, secret = guarded
    strict = load(service, *SHORT, *GENEROUS, "--api-key", secret, "Client")
    assert strict.returncode == 1
    assert "failed, more than 1.00%" in strict.stderr


def test_refused_requests_are_counted_apart_where_they_are_allowed(
    guarded: tuple["Service", str], load: Load, tmp_path: Path
) -> None:
    service, secret = guarded
    ended = load(service, *SHORT, *GENEROUS, "--api-key", secret, "--allow-refused", "Client")
    assert ended.returncode == 0, ended.stderr
    refused = [row for row in rows(tmp_path / "run_stats.csv") if row["Name"].endswith(" refused")]
    assert sum(int(row["Request Count"]) for row in refused) > 0


def test_a_run_in_which_nobody_is_answered_fails(guarded: tuple["Service", str], load: Load) -> None:
    ended = load(guarded[0], *SHORT, *GENEROUS, "--max-error-rate", "1", "Client")
    assert ended.returncode == 1
    assert "nothing was answered" in ended.stderr


class WithoutInfo(BaseHTTPRequestHandler):
    """Answers as a proxy in front that lets only queries through; keeps the sizes of the images."""

    server: "Front"

    def do_GET(self) -> None:
        self._answer(404, b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.sizes.add(Image.open(io.BytesIO(body)).size)
        self._answer(200, b'{"label": "cat"}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


class Front(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), WithoutInfo)
        self.sizes: set[tuple[int, int]] = set()

    @property
    def port(self) -> int:
        return self.server_port


@pytest.fixture
def front() -> Iterator[Front]:
    with Front() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("given", "size", "lines"), [((), (32, 32), 1), (("--input-size", "48x40"), (48, 40), 0)], ids=["asked", "given"]
)
def test_an_attacker_that_cannot_ask_for_the_size_takes_the_given_or_the_usual_one(
    front: Front, load: Load, given: tuple[str, ...], size: tuple[int, int], lines: int
) -> None:
    ended = load(front, *SHORT, *GENEROUS, *given, "Attacker")
    assert ended.returncode == 0, ended.stderr
    assert front.sizes == {size}
    assert ended.stderr.count("/info answers 404") == lines


def test_a_size_that_is_none_is_refused_before_anything_is_sent(front: Front, load: Load) -> None:
    ended = load(front, *SHORT, "--input-size", "32", "Attacker")
    assert ended.returncode == 2
    assert "'32' is no size such as 224x224" in ended.stderr


STEPS = ("--first-users", "2", "--more-users", "2", "--most-users", "4", "--step-seconds", "2", "--pace-seconds", "0.2")


def test_steps_end_at_the_last_and_tell_the_capacity(service: "Service", load: Load, tmp_path: Path) -> None:
    ended = load(service, *STEPS, *GENEROUS, file="step.py")
    assert ended.returncode == 0, ended.stderr
    steps = rows(tmp_path / "run_steps.csv")
    assert [step["users"] for step in steps] == ["2", "4"]
    best = max(float(step["answered_per_second"]) for step in steps)
    assert f"capacity: {best:.1f} requests a second" in ended.stderr


def test_steps_end_at_the_first_that_breaks_and_fail_if_none_held(
    service: "Service", load: Load, tmp_path: Path
) -> None:
    ended = load(service, *STEPS, "--max-p99-ms", "0.5", file="step.py")
    assert ended.returncode == 1
    assert "no step held the thresholds" in ended.stderr
    assert [step["users"] for step in rows(tmp_path / "run_steps.csv")] == ["2"]


def test_steps_fail_below_the_least_capacity(service: "Service", load: Load) -> None:
    ended = load(service, *STEPS, *GENEROUS, "--min-capacity", "1e9", file="step.py")
    assert ended.returncode == 1
    assert "less than 1e+09" in ended.stderr


def test_a_soak_is_judged_part_by_part(service: "Service", load: Load, tmp_path: Path) -> None:
    ended = load(service, *SHORT, *GENEROUS, "--minute-seconds", "1", file="soak.py")
    assert ended.returncode == 0, ended.stderr
    assert {row["broken"] for row in rows(tmp_path / "run_minutes.csv")} == {""}
    assert len(rows(tmp_path / "run_minutes.csv")) > 1
