"""The entry before several replicas: a real nginx with the configuration of the repository, before real HTTP servers.

A name server of a few lines stands for Docker's; the replicas are on two loopback addresses, since all use one port.
"""

import json
import re
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

ADDRESSES = ("127.0.0.1", "127.0.0.2")
PATIENCE_SECONDS = 30


class Names(threading.Thread):
    """Answers every question with the addresses of all replicas."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[bytes] = set()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def run(self) -> None:
        while True:
            question, client = self._socket.recvfrom(512)
            if not question:
                return
            self.asked.add(question[13 : 13 + question[12]])
            header = question[:2] + struct.pack(">HHHHH", 0x8180, 1, len(ADDRESSES), 0, 0)
            records = (struct.pack(">HHHIH", 0xC00C, 1, 1, 1, 4) + socket.inet_aton(one) for one in ADDRESSES)
            self._socket.sendto(header + question[12:] + b"".join(records), client)

    def stop(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", ("127.0.0.1", self.port))
        self.join()
        self._socket.close()


class Answer(BaseHTTPRequestHandler):
    """Answers as a replica does that is in a certain state."""

    server: "Replica"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer()

    def _answer(self) -> None:
        self.server.paths.append(self.path)
        body = json.dumps({"replica": self.server.server_address[0]}).encode()
        self.send_response(200 if self.server.ready else 503)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Request-ID", self.headers["X-Request-ID"])
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


class Replica(ThreadingHTTPServer):
    def __init__(self, address: str, port: int) -> None:
        super().__init__((address, port), Answer)
        self.ready = True
        self.paths: list[str] = []
        self._thread = threading.Thread(target=self.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
            self.server_close()


class Entry:
    """nginx and its replicas."""

    def __init__(self, client: httpx.Client, replicas: list[Replica], names: Names) -> None:
        self.client = client
        self.replicas = replicas
        self.names = names

    def ask(self, path: str = "/classify", content: bytes = b"image") -> httpx.Response:
        return self.client.post(path, content=content)

    def paths(self) -> list[str]:
        """What came through to any replica."""
        return [path for replica in self.replicas for path in replica.paths]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def configuration(root: Path, folder: Path, **new: str) -> Path:
    text = (root / "deploy" / "nginx" / "nginx.conf").read_text()
    changes = {
        "resolver 127.0.0.11 valid=5s": f"resolver 127.0.0.1:{new['names']} valid=1s",
        "listen 8080;": f"listen 127.0.0.1:{new['port']};",
        "$replicas:8000": f"$replicas:{new['replicas']}",
        "access_log /dev/stdout;": "access_log off;",
        "/tmp/": f"{folder}/",
    }
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    (folder / "nginx.conf").write_text(text)
    return folder / "nginx.conf"


@pytest.fixture
def entry(root: Path, tmp_path: Path) -> Iterator[Entry]:
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("nginx is not installed")
    with ExitStack() as stack:
        names = Names()
        names.start()
        stack.callback(names.stop)
        first = Replica(ADDRESSES[0], 0)
        replicas = [first, Replica(ADDRESSES[1], first.server_port)]
        for replica in replicas:
            stack.callback(replica.stop)
        port = free_port()
        tmp_path.chmod(0o755)
        file = configuration(root, tmp_path, names=str(names.port), port=str(port), replicas=str(first.server_port))
        process = subprocess.Popen([program, "-c", str(file), "-g", "daemon off; user root;"])
        stack.callback(process.wait, PATIENCE_SECONDS)
        stack.callback(process.terminate)
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS))
        wait_for(client, process)
        yield Entry(client, replicas, names)


def wait_for(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    tired = threading.Event()
    timer = threading.Timer(PATIENCE_SECONDS, tired.set)
    timer.start()
    while True:
        assert process.poll() is None
        assert not tired.wait(0.01)
        try:
            assert client.get("/entry/livez").status_code == 204
        except httpx.ConnectError:
            continue
        break
    timer.cancel()
    timer.join()


def test_every_replica_is_asked(entry: Entry) -> None:
    answered = {entry.ask().json()["replica"] for _ in range(60)}
    assert answered == set(ADDRESSES)
    assert entry.names.asked == {b"gateway"}


def is_problem(response: httpx.Response, status: int, name: str) -> bool:
    """Whether it is what the gateway itself would have answered, with one id in its head and its body."""
    body = response.json()
    assert (response.status_code, response.headers["Content-Type"]) == (status, "application/problem+json")
    assert response.headers.get_list("X-Request-ID") == [body["request_id"]]
    assert body["request_id"]
    return bool((body["status"], body["type"]) == (status, f"urn:purigate:problem:{name}"))


def test_clients_come_to_the_routes_that_are_for_them(entry: Entry) -> None:
    assert [entry.ask(path).status_code for path in ("/classify?top_k=1", "/classify/batch")] == [200, 200]
    assert entry.paths() == ["/classify?top_k=1", "/classify/batch"]


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/info",
        "/docs",
        "/openapi.json",
        "/admin/reload",
        "/livez",
        "/classify/../metrics",
        "/",
        "/entry/problem/internal",
    ],
)
def test_nothing_else_comes_through(entry: Entry, path: str) -> None:
    assert is_problem(entry.ask(path), 404, "not-found")
    assert entry.paths() == []


def test_while_one_replica_is_not_ready_the_other_answers(entry: Entry) -> None:
    entry.replicas[0].ready = False
    assert {entry.ask().json()["replica"] for _ in range(20)} == {ADDRESSES[1]}


def test_while_one_replica_is_gone_the_other_answers(entry: Entry) -> None:
    entry.replicas[1].stop()
    assert {entry.ask().json()["replica"] for _ in range(20)} == {ADDRESSES[0]}


def test_a_refusal_of_all_is_passed_on(entry: Entry) -> None:
    for replica in entry.replicas:
        replica.ready = False
    assert entry.ask().status_code == 503
    assert len(entry.paths()) == 2, "nobody is asked more than that: refusals must not multiply under load"


def test_without_any_replica_it_says_when_to_come_back(entry: Entry) -> None:
    for replica in entry.replicas:
        replica.stop()
    response = entry.ask()
    assert is_problem(response, 503, "not-ready")
    assert response.headers["Retry-After"] == "5"


def test_a_body_that_is_too_large_is_refused_before_a_replica_sees_it(entry: Entry) -> None:
    assert is_problem(entry.ask(content=bytes(17 * 1024 * 1024)), 413, "body-too-large")
    assert entry.paths() == []


def test_the_largest_body_that_the_service_takes_comes_through(entry: Entry, root: Path) -> None:
    documented = re.search(r"`PURIGATE_MAX_BODY_BYTES` .*? `(\d+)`", (root / "docs" / "configuration.md").read_text())
    assert documented
    assert entry.ask(content=bytes(int(documented.group(1)))).status_code == 200


def test_it_tells_whether_any_replica_is_ready(entry: Entry) -> None:
    entry.replicas[0].ready = False
    assert entry.client.get("/readyz").status_code == 200
    entry.replicas[1].ready = False
    assert entry.client.get("/readyz").status_code == 503


@pytest.mark.parametrize(
    ("head", "status", "name"),
    [
        (b"what is this?\r\n\r\n", 400, "malformed-request"),
        (b"POST /classify HTTP/1.1\r\n\r\n", 400, "malformed-request"),
        (b"POST /classify HTTP/9.9\r\nHost: a\r\n\r\n", 400, "malformed-request"),
        (b"TRACE /classify HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method-not-allowed"),
        (b"POST /classify?" + 9000 * b"a" + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431, "head-too-large"),
        (b"POST /classify HTTP/1.1\r\nHost: a\r\nA: " + 9000 * b"a" + b"\r\n\r\n", 431, "head-too-large"),
    ],
    ids=["no request", "no host", "no such version", "trace", "long address", "long field"],
)
def test_what_it_cannot_take_is_a_problem(entry: Entry, head: bytes, status: int, name: str) -> None:
    with socket.create_connection((entry.client.base_url.host, entry.client.base_url.port or 80)) as connection:
        connection.settimeout(PATIENCE_SECONDS)
        connection.sendall(head)
        answer = HTTPResponse(connection)
        answer.begin()
        response = httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())
    assert is_problem(response, status, name)
    assert entry.paths() == []


def test_an_answer_of_a_replica_bears_one_id(entry: Entry) -> None:
    response = entry.client.post("/classify", content=b"image", headers={"X-Request-ID": "mine-1"})
    assert response.headers.get_list("X-Request-ID") == ["mine-1"]


@pytest.mark.parametrize(("sent", "kept"), [("mine-1", True), ('"},{"', False)])
def test_the_id_of_a_client_is_kept_if_it_is_one(entry: Entry, sent: str, kept: bool) -> None:
    response = entry.client.get("/nothing", headers={"X-Request-ID": sent})
    assert is_problem(response, 404, "not-found")
    assert (response.headers["X-Request-ID"] == sent) == kept
