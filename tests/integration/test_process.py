"""The process: how it starts, what it writes, and how it ends."""

import shutil
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from models.inference.int8_convolution import int8_problem
from service.keys import KeysFile
from tests.conftest import with_a_narrow_classifier

if TYPE_CHECKING:
    from tests.integration.conftest import Launch, Process

PATIENCE_SECONDS = 180
PURIGATE = str(Path(sys.executable).with_name("purigate"))
HELD_SERVER = str(Path(__file__).with_name("held_server.py"))
STOPPED_BY_SIGTERM = {0, -signal.SIGTERM}


@dataclass(frozen=True)
class Processes:
    """All processes of these tests; they start together, since each takes seconds to import PyTorch."""

    serving: "Process"
    held: "Process"
    exposed: "Process"
    insecure: "Process"
    damaged: "Process"
    damaged_weights: str
    narrow: "Process"
    secret: str


@pytest.fixture(scope="module")
def processes(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory, launch: "Launch") -> Processes:
    folder = tmp_path_factory.mktemp("processes")
    keys, secret = KeysFile().issue("alice")
    keys.write(folder / "keys.json")
    weights = shutil.copytree(bundle_folder, folder / "damaged") / "pgd-rcan.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    narrow = with_a_narrow_classifier(shutil.copytree(bundle_folder, folder / "narrow"))
    serve = (PURIGATE, "serve", "--port", "0", "--device", "cpu", "--bundle")
    return Processes(
        serving=launch(*serve, bundle_folder, "--keys-file", folder / "keys.json"),
        held=launch(sys.executable, HELD_SERVER, bundle_folder, folder / "keys.json"),
        exposed=launch(*serve, bundle_folder, "--host", "0.0.0.0"),
        insecure=launch(*serve, bundle_folder, "--host", "0.0.0.0", "--insecure"),
        damaged=launch(*serve, folder / "damaged"),
        damaged_weights=str(weights),
        narrow=launch(*serve, narrow, "--precision", "int8"),
        secret=secret,
    )


@dataclass(frozen=True)
class Life:
    """A served life from start to end.

    Attributes:
        ready: its first answer to a client, as soon as it was ready.
        refused: its answer to a client without a key.
        status: its exit status after SIGTERM.
    """

    ready: httpx.Response
    refused: httpx.Response
    status: int
    log: list[dict[str, Any]]
    output: str


def ask(port: int, content: bytes, **headers: str) -> httpx.Response:
    url = f"http://127.0.0.1:{port}/classify"
    headers = {name.replace("_", "-"): value for name, value in headers.items()} | {"Content-Type": "image/png"}
    return httpx.post(url, content=content, headers=headers, timeout=PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def life(processes: Processes, png: Callable[[int], bytes]) -> Life:
    process = processes.serving
    port = process.wait_for_port()
    process.wait_for_answer(port)
    ready = ask(port, png(1), X_API_Key=processes.secret, X_Request_ID="the-first")
    refused = ask(port, png(1), X_API_Key="pg_not-one-of-ours", X_Request_ID="the-second")
    pipeline(port, processes.secret)
    process.stop()
    status = process.wait()
    return Life(ready, refused, status, process.log(), "\n".join(process.stdout + process.stderr))


def pipeline(port: int, secret: str) -> None:
    """Sends a request with a key and one without in one go, and waits for both answers."""
    line = "POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n"
    first = f"{line}X-API-Key: {secret}\r\nX-Request-ID: the-third\r\n\r\nhi"
    second = f"{line}Connection: close\r\nX-Request-ID: the-fourth\r\n\r\nhi"
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as client:
        client.sendall((first + second).encode())
        while client.recv(65_536):
            pass


def requests(life: Life) -> dict[str, dict[str, Any]]:
    """The log lines of requests by their ids."""
    return {line["request_id"]: line for line in life.log if line["event"] == "request"}


def test_it_takes_a_free_port_becomes_ready_and_answers(life: Life) -> None:
    assert life.ready.status_code == 200
    assert life.ready.json()["bundle"] == {"name": "toy", "version": "1"}


def test_it_asks_for_a_key(life: Life) -> None:
    assert life.refused.status_code == 401


def test_it_ends_when_it_is_told_to(life: Life) -> None:
    assert life.status in STOPPED_BY_SIGTERM


def test_every_line_that_it_writes_is_json(life: Life) -> None:
    assert [line for line in life.log if not {"event", "level", "timestamp"} <= set(line)] == []


def test_it_writes_nothing_to_standard_error(life: Life, processes: Processes) -> None:  # noqa: ARG001 - life ends it
    assert processes.serving.stderr == []


def test_its_settings_are_written_at_the_start(life: Life) -> None:
    settings = life.log[0]
    assert (settings["event"], settings["port"], settings["defense"]) == ("settings", 0, "puridefense")


def test_each_request_is_written_with_its_id_and_its_fate(life: Life) -> None:
    written = requests(life)
    assert {request_id: written[request_id]["status"] for request_id in ("the-first", "the-second")} == {
        "the-first": 200,
        "the-second": 401,
    }


def test_probes_are_not_written(life: Life) -> None:
    assert {line["route"] for line in life.log if line["event"] == "request"} == {"/classify"}


def test_a_request_is_written_with_the_name_of_its_key(life: Life) -> None:
    assert requests(life)["the-first"]["key"] == "alice"


def test_a_request_is_not_written_with_the_key_of_the_one_before_it(life: Life) -> None:
    written = requests(life)
    assert (written["the-third"]["key"], written["the-third"]["status"]) == ("alice", 415)
    assert ("key" in written["the-fourth"], written["the-fourth"]["status"]) == (False, 401)


def test_no_key_is_ever_written(life: Life, processes: Processes) -> None:
    assert processes.secret not in life.output
    assert "pg_not-one-of-ours" not in life.output


@dataclass(frozen=True)
class Stop:
    """What happened to a request that was in flight when SIGTERM came, and what came after."""

    answer: httpx.Response
    late: httpx.TransportError | httpx.Response
    status: int


@pytest.fixture(scope="module")
def stop(processes: Processes, png: Callable[[int], bytes]) -> Stop:
    process = processes.held
    port = process.wait_for_port()
    process.wait_for_answer(port)
    with ThreadPoolExecutor(1) as pool:
        in_flight = pool.submit(ask, port, png(1), X_API_Key=processes.secret)
        process.wait_for_line("busy")
        process.stop()
        process.wait_for_line("Shutting down")
        late: httpx.TransportError | httpx.Response
        try:
            late = ask(port, png(2), X_API_Key=processes.secret)
        except httpx.TransportError as error:
            late = error
        process.tell("go on")
        answer = in_flight.result(PATIENCE_SECONDS)
    return Stop(answer, late, process.wait())


def test_a_request_in_flight_is_answered_although_it_was_told_to_stop(stop: Stop) -> None:
    assert stop.answer.status_code == 200


def test_after_it_was_told_to_stop_nobody_else_is_served(stop: Stop) -> None:
    assert isinstance(stop.late, httpx.TransportError) or stop.late.status_code == 503


def test_once_it_has_answered_it_ends(stop: Stop) -> None:
    assert stop.status in STOPPED_BY_SIGTERM


def assert_refused(process: "Process", *reasons: str) -> None:
    """It ended with status 1 and one line that says why."""
    assert process.wait() == 1
    (line,) = process.stderr
    assert line.startswith("error: ")
    assert [reason for reason in reasons if reason not in line] == []
    assert "Traceback" not in "\n".join(process.stdout)


def test_a_damaged_bundle_is_refused_in_one_line_that_names_the_file(processes: Processes) -> None:
    assert_refused(processes.damaged, processes.damaged_weights)


@pytest.mark.skipif(int8_problem() is not None, reason=f"no int8 here: {int8_problem()}")
def test_a_classifier_that_cannot_compute_in_the_precision_is_refused_in_one_line(processes: Processes) -> None:
    assert_refused(processes.narrow, "precision int8: the classifier has no convolution that is wide enough")


def test_an_address_that_others_can_reach_is_refused_without_a_key(processes: Processes) -> None:
    assert_refused(processes.exposed, "0.0.0.0", "purigate keys new", "--insecure")


def test_it_is_served_if_told_so(processes: Processes, png: Callable[[int], bytes]) -> None:
    port = processes.insecure.wait_for_port()
    processes.insecure.wait_for_answer(port)
    assert ask(port, png(1)).status_code == 200
