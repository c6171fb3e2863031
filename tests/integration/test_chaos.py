"""A real server and a real Redis under load while everything around them fails; no accepted request may be lost."""

import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.keys import KeysFile

if TYPE_CHECKING:
    from tests.conftest import RedisServer
    from tests.integration.conftest import Launch, Process

Eventually = Callable[[Callable[[], bool]], None]
CHAOS_SERVER = str(Path(__file__).with_name("chaos_server.py"))
CLIENTS = 12
LEAVERS = 20
ROUND = 100
STAYS = "load"
ANSWERED, REFUSED = 200, {503}


@dataclass
class Ledger:
    """What became of every request of a client that stayed.

    Attributes:
        sent: all of them.
        refused: before or instead of work, with a status that says so.
        closed: the connection was closed or refused before any of the answer came, after the server was told to stop;
            whether the server had taken the request is in its log.
        lost: whatever else.
    """

    sent: int = 0
    answered: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    closed: int = 0
    lost: list[str] = field(default_factory=list)


class Load:
    """Clients that ask again and again, until they are told to end or the server that they know to stop is gone.

    Args:
        port: of the server.
        key: of the clients that stay.
        leavers_key: of those that do not.
        content: the image that all ask about.
    """

    def __init__(self, port: int, key: str, leavers_key: str, content: bytes) -> None:
        self.port = port
        self.ledger = Ledger()
        self.stopping = threading.Event()
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._content = content
        self._key = key
        self._leavers_key = leavers_key
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._clients = [self._pool.submit(self._client) for _ in range(CLIENTS)]

    def close(self) -> Ledger:
        self._done.set()
        for client in self._clients:
            client.result(60)
        self._pool.shutdown()
        return self.ledger

    def leave_half_way(self) -> None:
        """Clients that send half of a request, or all of it, and are gone."""
        headers = self._headers(self._leavers_key) | {"Host": "x", "Content-Length": str(len(self._content))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        whole = f"POST /classify HTTP/1.1\r\n{head}\r\n".encode() + self._content
        for number in range(LEAVERS):
            with socket.create_connection(("127.0.0.1", self.port)) as client:
                client.sendall(whole[: len(whole) // (1 + number % 2)])

    @staticmethod
    def _headers(key: str) -> dict[str, str]:
        return {"X-API-Key": key, "Content-Type": "image/png"}

    def _client(self) -> None:
        base_url, headers = f"http://127.0.0.1:{self.port}", self._headers(self._key)
        while not self._done.is_set():
            with httpx.Client(base_url=base_url, headers=headers, timeout=60) as http:
                if not self._ask_until_it_breaks(http):
                    return

    def _ask_until_it_breaks(self, http: httpx.Client) -> bool:
        """Whether to connect again."""
        while not self._done.is_set():
            with self._lock:
                self.ledger.sent += 1
            try:
                answer = http.post("/classify", content=self._content)
            except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError) as error:
                with self._lock:
                    if self.stopping.is_set():
                        self.ledger.closed += 1
                        return False
                    self.ledger.lost.append(repr(error))
                return True
            with self._lock:
                if answer.status_code == ANSWERED and answer.json()["label"]:
                    self.ledger.answered += 1
                elif answer.status_code in REFUSED and "Retry-After" in answer.headers:
                    self.ledger.refused[answer.status_code] += 1
                else:
                    self.ledger.lost.append(answer.text)
        return False


class Operator:
    """Looks at a server from outside."""

    def __init__(self, process: "Process", port: int, eventually: Eventually) -> None:
        self.process = process
        self.eventually = eventually
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def value(self, sample_name: str, **labels: str) -> float:
        for family in text_string_to_metric_families(self._http.get("/metrics").text):
            for sample in family.samples:
                if sample.name == f"purigate_{sample_name}" and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return 0

    def wait_for(self, value: float, sample_name: str) -> None:
        self.eventually(lambda: self.value(sample_name) == value)

    def wait_for_answers(self, more: int) -> None:
        goal = self.value("queries_total", outcome="answered") + more
        self.eventually(lambda: self.value("queries_total", outcome="answered") >= goal)

    def close(self) -> None:
        self._http.close()


@pytest.fixture(scope="module")
def keys_and_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path]:
    path = tmp_path_factory.mktemp("chaos") / "keys.json"
    keys, load = KeysFile().issue(STAYS, quota="100000000/day")
    keys, leavers = keys.issue("leavers", quota="100000000/day")
    keys.write(path)
    return load, leavers, path


def test_no_accepted_request_is_lost_whatever_fails(
    launch: "Launch",
    bundle_folder: Path,
    keys_and_file: tuple[str, str, Path],
    redis_server: "RedisServer",
    png: Callable[[int], bytes],
    eventually: Eventually,
) -> None:
    key, leavers_key, keys_file = keys_and_file
    process = launch(sys.executable, CHAOS_SERVER, bundle_folder, keys_file, redis_server.url)
    port = process.wait_for_port()
    process.wait_for_answer(port)
    operator = Operator(process, port, eventually)
    load = Load(port, key, leavers_key, png(1))
    try:
        operator.wait_for_answers(ROUND)
        redis_server.kill()
        operator.wait_for(1, "quota_store_degraded")
        operator.wait_for_answers(ROUND)
        redis_server.start()
        operator.wait_for(0, "quota_store_degraded")
        load.leave_half_way()
        operator.wait_for_answers(ROUND)
        process.stop(signal.SIGUSR1)
        process.wait_for_line("recovered")
        operator.wait_for_answers(ROUND)
        answered = operator.value("http_requests_total", route="/classify", code="200")
        operator.close()
        load.stopping.set()
        process.stop(signal.SIGTERM)
        process.wait()
    finally:
        ledger = load.close()
    sys.stdout.write(f"{ledger}\n")  # the table: pytest -s shows it
    assert ledger.lost == []
    assert ledger.sent == ledger.answered + ledger.refused.total() + ledger.closed
    assert ledger.closed <= CLIENTS
    assert ledger.answered >= answered - LEAVERS
    assert ledger.refused[503] > 0, "the queries that met the failing engine"
    events = Counter(line["event"] for line in process.log())
    told = [line.get("reason", "") for line in process.log() if line["event"] == "quota_store_lost"]
    once = ("quota_store_lost", "quota_store_back", "device_fault", "recovered")
    assert [events[event] for event in once] == [1] * 4, told
    requests = [line for line in process.log() if line["event"] == "request"]
    written = Counter(line["status"] for line in requests if line.get("key") == STAYS)
    assert set(written) == {200, 503}, "499 is one that the server took and did not answer"
    assert written[200] == ledger.answered, "every answer that was sent came"
    assert {line["status"] for line in requests} <= {200, 499, 503}
    assert process.stderr == []
