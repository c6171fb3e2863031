"""A server that does what a test says, and the client that is measured with."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from benchmarks.client import Client, running_client


class TinyServer(ThreadingHTTPServer):
    """Answers with a status that a test chooses, by the number of the request; 0 hangs up.

    Attributes:
        url: where it answers.
        asked: the media type and the body of each request so far.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, status: Callable[[int], int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.asked: list[tuple[str, bytes]] = []
        self.status = status
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    answer: ClassVar[bytes] = json.dumps({"index": 2, "scores": [{"index": 2, "score": 0.75}]}).encode()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, TinyServer)
        with self.server.lock:
            number = len(self.server.asked)
            self.server.asked.append((self.headers["Content-Type"], body))
        status = self.server.status(number)
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def tiny() -> Iterator[Callable[[Callable[[int], int]], TinyServer]]:
    """Starts a server; it ends with the test."""
    servers = []

    def start(status: Callable[[int], int]) -> TinyServer:
        server = TinyServer(status)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    with running_client() as client:
        yield client
