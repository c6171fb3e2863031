"""A soak against a server whose answers are not those of a gateway."""

import csv
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

LOCUST = str(Path(sys.executable).with_name("locust"))
SOAK = str(Path(__file__).parents[2] / "loadtest" / "soak.py")
PATIENCE_SECONDS = 180
LENGTH = ("--users", "2", "--run-time", "20s", "--minute-seconds", "2", "--pace-seconds", "0.2")


class Page(BaseHTTPRequestHandler):
    """Answers 200 with what is no JSON, as a proxy may that has a page for everything."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def ended(url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[dict[str, str]]]:
    """The exit code of a soak, and its minutes."""
    prefix = tmp_path_factory.mktemp("soak") / "run"
    command = [LOCUST, "-f", SOAK, "--headless", "--only-summary", "--host", url, "--csv", str(prefix), *LENGTH]
    done = subprocess.run([*command, "Client"], capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    with Path(f"{prefix}_minutes.csv").open() as file:
        return done.returncode, list(csv.DictReader(file))


def test_a_soak_ends_at_the_first_minute_that_breaks_a_threshold_and_fails(
    ended: tuple[int, list[dict[str, str]]],
) -> None:
    status, minutes = ended
    assert status == 1
    assert [minute["broken"] for minute in minutes] == ["nothing was answered; 100.00% failed, more than 1.00%"]


def test_an_answer_that_is_no_json_is_a_failure(ended: tuple[int, list[dict[str, str]]]) -> None:
    assert [minute["error_rate"] for minute in ended[1]] == ["1.0000"]
