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
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml

from service.errors import PROBLEMS, QueueFullError, UnauthenticatedError

ADDRESSES = ("127.0.0.1", "127.0.0.2")
PATIENCE_SECONDS = 30
KEY = {"X-API-Key": "pg_0"}
LARGE_BYTES = 1_000_000


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
        assert self.server.moves_on.wait(PATIENCE_SECONDS)
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
        self.moves_on = threading.Event()
        self.moves_on.set()
        self.paths: list[str] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing: nginx did not wait for an answer."""

    def vanish(self) -> list[socket.socket]:
        """As a host that is gone: whoever connects waits, since the queue of connections is full for good."""
        address = self.server_address[:2]
        self.stop()
        listener = socket.create_server(address, backlog=0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        return [listener, *waiting]

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

    def ask(
        self, path: str = "/classify", content: bytes = b"image", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        return self.client.post(path, content=content, headers=KEY if headers is None else headers)

    def begin(self, sender: str, length: str) -> socket.socket:
        """A request whose body never ends, of a client that the proxy in front has noted."""
        fields = {"Host": "a", "X-Forwarded-For": f"10.0.0.1, {sender}", **KEY}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        connection = socket.create_connection((self.client.base_url.host, self.client.base_url.port or 80))
        connection.sendall(f"POST /classify HTTP/1.1\r\n{head}{length}\r\n\r\n".encode())
        return connection

    def paths(self) -> list[str]:
        """What came through to any replica."""
        return [path for replica in self.replicas for path in replica.paths]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def configuration(root: Path, folder: Path, changes: dict[str, str]) -> Path:
    text = (root / "deploy" / "nginx" / "nginx.conf").read_text()
    for before, after in {**changes, "access_log /dev/stdout;": "access_log off;", "/tmp/": f"{folder}/"}.items():
        assert before in text
        text = text.replace(before, after)
    (folder / "nginx.conf").write_text(text)
    return folder / "nginx.conf"


@contextmanager
def started(root: Path, folder: Path, changes: dict[str, str]) -> Iterator[Entry]:
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
        folder.chmod(0o755)
        here = {
            "resolver 127.0.0.11 valid=5s": f"resolver 127.0.0.1:{names.port} valid=1s",
            "listen 8080;": f"listen 127.0.0.1:{port};",
            "$replicas:8000": f"$replicas:{first.server_port}",
        }
        file = configuration(root, folder, {**here, **changes})
        process = subprocess.Popen([program, "-c", str(file), "-g", "daemon off; user root;"])
        stack.callback(process.wait, PATIENCE_SECONDS)
        stack.callback(process.terminate)
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS))
        wait_for(client, process)
        yield Entry(client, replicas, names)


@pytest.fixture
def entry(root: Path, tmp_path: Path) -> Iterator[Entry]:
    with started(root, tmp_path, {}) as one:
        yield one


@pytest.fixture
def hurried(root: Path, tmp_path: Path) -> Iterator[Entry]:
    """One that waits for a replica for a tenth of the time."""
    tenth = {"proxy_read_timeout 30s": "proxy_read_timeout 3s", "upstream_timeout 5s": "upstream_timeout 500ms"}
    with started(root, tmp_path, tenth) as one:
        yield one


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


def answer_of(connection: socket.socket) -> httpx.Response:
    answer = HTTPResponse(connection)
    answer.begin()
    return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())


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


@pytest.mark.parametrize("path", ["/classify", "/readyz"])
def test_while_nobody_is_at_a_known_address_the_other_answers(entry: Entry, path: str) -> None:
    """As after the stop of a container, until its address is forgotten."""
    with ExitStack() as stack, ThreadPoolExecutor(10) as asking:
        for one in entry.replicas[1].vanish():
            stack.enter_context(one)
        ask = entry.client.get if path == "/readyz" else entry.ask
        answers = [answer.result() for answer in [asking.submit(ask, path) for _ in range(10)]]
        assert [answer.status_code for answer in answers] == 10 * [200]


def test_a_replica_that_answers_too_late_is_the_only_one_that_is_asked(hurried: Entry) -> None:
    for replica in hurried.replicas:
        replica.moves_on.clear()
    try:
        assert is_problem(hurried.ask(), 503, "not-ready")
        assert len(hurried.paths()) == 1
    finally:
        for replica in hurried.replicas:
            replica.moves_on.set()


def test_a_replica_that_hangs_does_not_hide_one_that_is_ready(entry: Entry) -> None:
    entry.replicas[0].moves_on.clear()
    try:
        with ThreadPoolExecutor(10) as asking:
            answers = [answer.result() for answer in [asking.submit(entry.client.get, "/readyz") for _ in range(10)]]
    finally:
        entry.replicas[0].moves_on.set()
    assert [answer.status_code for answer in answers] == 10 * [200]


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


@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
@pytest.mark.parametrize("headers", [{}, {"X-API-Key": ""}, {"Authorization": ""}], ids=str)
def test_without_a_key_no_body_is_read(entry: Entry, path: str, headers: dict[str, str]) -> None:
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection((entry.client.base_url.host, entry.client.base_url.port or 80)) as connection:
        connection.settimeout(PATIENCE_SECONDS)
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: 9\r\n\r\n".encode())
        response = answer_of(connection)
    assert is_problem(response, 401, "unauthenticated")
    assert response.json()["title"] == PROBLEMS[UnauthenticatedError].title
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert entry.paths() == []


@pytest.mark.parametrize("headers", [KEY, {"Authorization": "Bearer pg_0"}], ids=str)
def test_whether_a_key_is_one_of_ours_is_for_a_replica_to_say(entry: Entry, headers: dict[str, str]) -> None:
    assert entry.ask(headers=headers).status_code == 200


@pytest.mark.parametrize("length", [f"Content-Length: {LARGE_BYTES}", "Transfer-Encoding: chunked"])
def test_large_bodies_that_never_end_cannot_fill_the_memory_in_which_they_wait(
    entry: Entry, root: Path, length: str
) -> None:
    text = (root / "deploy" / "nginx" / "nginx.conf").read_text()
    most, most_of_one = (int(limit) for limit in re.findall(r"limit_conn large_\w+ (\d+);", text))
    size = yaml.safe_load((root / "docker-compose.replicas.yml").read_text())["services"]["entry"]["tmpfs"]
    largest = re.search(r"client_max_body_size (\d+)m;", text)
    assert size == ["/tmp:mode=1777,size=1g"]
    assert largest
    assert most * int(largest.group(1)) < 1024
    assert most_of_one < most
    with ExitStack() as stack:
        for _ in range(most_of_one):
            stack.enter_context(entry.begin("10.0.0.2", length))
        response = until_refused(entry, {**KEY, "X-Forwarded-For": "10.0.0.2"})
        assert is_problem(response, 503, "queue-full")
        assert response.json()["title"] == PROBLEMS[QueueFullError].title
        assert response.headers["Retry-After"] == "1"
        assert entry.ask(headers={**KEY, "X-Forwarded-For": "10.0.0.2"}).status_code == 200, (
            "small ones are not counted"
        )
        assert entry.ask(content=bytes(LARGE_BYTES)).status_code == 200, "nor are those of others"
        for number in range(most - most_of_one):
            stack.enter_context(entry.begin(f"10.0.1.{number}", length))
        assert is_problem(until_refused(entry, KEY), 503, "queue-full")
        assert entry.ask().status_code == 200
        assert entry.client.get("/classify", headers=KEY).status_code == 200


def test_small_bodies_that_never_end_cannot_fill_the_memory_of_the_entry(root: Path, tmp_path: Path) -> None:
    text = (root / "deploy" / "nginx" / "nginx.conf").read_text()
    most, most_of_one = (int(limit) for limit in re.findall(r"limit_conn requests\w* (\d+);", text))
    (buffer,) = (int(size) for size in re.findall(r"client_body_buffer_size (\d+)m;", text))
    entry = yaml.safe_load((root / "docker-compose.replicas.yml").read_text())["services"]["entry"]
    in_files = 1024
    assert entry["mem_limit"] == "4g"
    assert most * buffer + in_files < 4096
    assert most_of_one < most
    changes = {f"limit_conn requests {most};": "limit_conn requests 4;", f"sender {most_of_one};": "sender 2;"}
    with started(root, tmp_path, changes) as few, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(few.begin("10.0.0.2", "Content-Length: 999999"))
        refused = until_refused(few, {**KEY, "X-Forwarded-For": "10.0.0.2"}, size=10)
        assert is_problem(refused, 503, "queue-full")
        assert few.ask(content=bytes(10)).status_code == 200, "others are not refused"
        for number in range(2):
            stack.enter_context(few.begin(f"10.0.1.{number}", "Content-Length: 999999"))
        assert is_problem(until_refused(few, KEY, size=10), 503, "queue-full")


def until_refused(entry: Entry, headers: dict[str, str], size: int = LARGE_BYTES) -> httpx.Response:
    """The first refusal of a body of a size: those that began before may not have been read yet."""
    tired = threading.Event()
    timer = threading.Timer(PATIENCE_SECONDS, tired.set)
    timer.start()
    while (response := entry.ask(content=bytes(size), headers=headers)).status_code == 200:
        assert not tired.wait(0.01)
    timer.cancel()
    timer.join()
    return response


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
        response = answer_of(connection)
    assert is_problem(response, status, name)
    assert entry.paths() == []


def test_an_answer_of_a_replica_bears_one_id(entry: Entry) -> None:
    response = entry.client.post("/classify", content=b"image", headers={**KEY, "X-Request-ID": "mine-1"})
    assert response.headers.get_list("X-Request-ID") == ["mine-1"]


@pytest.mark.parametrize(("sent", "kept"), [("mine-1", True), ('"},{"', False)])
def test_the_id_of_a_client_is_kept_if_it_is_one(entry: Entry, sent: str, kept: bool) -> None:
    response = entry.client.get("/nothing", headers={"X-Request-ID": sent})
    assert is_problem(response, 404, "not-found")
    assert (response.headers["X-Request-ID"] == sent) == kept
