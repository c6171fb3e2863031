"""Clients that hold connections, over real sockets."""

import json
import socket
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import FakeEngine, Serve, Service

Png = Callable[[int], bytes]
HEAD = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


def connect(service: "Service") -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=30)


def is_closed(client: socket.socket) -> bool:
    """Waits until the server closes the connection; whatever it says before is read."""
    while client.recv(65_536):
        pass
    return True


def get(client: HTTPConnection, path: str = "/livez") -> int:
    client.request("GET", path)
    response = client.getresponse()
    response.read()
    return response.status


@pytest.mark.parametrize("sent", [b"", b"POST /classify HTTP/1.1\r\nHo", HEAD, b"\r\n"])
def test_a_head_that_is_not_there_in_time_is_cut_off(serve: "Serve", engine: "FakeEngine", sent: bytes) -> None:
    service = serve(engine, head_timeout_ms=1000)
    with connect(service) as client:
        client.sendall(sent)
        assert is_closed(client)
    assert service.value("rejected_total", reason="head-timeout") == 1


def test_the_head_of_the_next_request_of_a_connection_has_to_be_there_in_time_too(
    serve: "Serve", engine: "FakeEngine"
) -> None:
    service = serve(engine, head_timeout_ms=1000)
    with connect(service) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HT")
        assert HTTPResponse(client).fp.readline() == b"HTTP/1.1 200 OK\r\n"
        client.sendall(b"TP/1.1\r\n")
        assert is_closed(client)


def test_a_connection_between_requests_is_not_cut_off(serve: "Serve", engine: "FakeEngine") -> None:
    service = serve(engine, head_timeout_ms=1000)
    client = HTTPConnection("127.0.0.1", service.port, timeout=30)
    assert get(client) == 200
    with connect(service) as silent:  # by the time that this one is cut off, the other has been idle for longer
        assert is_closed(silent)
    assert get(client) == 200
    client.close()


def test_a_query_that_takes_longer_than_a_head_may_is_answered(serve: "Serve", engine: "FakeEngine", png: Png) -> None:
    service = serve(engine, head_timeout_ms=1000)
    engine.free.clear()
    content = png(51)
    with connect(service) as client, connect(service) as silent:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content)
        assert is_closed(silent)
        engine.free.set()
        response = HTTPResponse(client)
        response.begin()
        assert (response.status, json.loads(response.read())["label"]) == (200, "bird")


def test_a_new_connection_takes_the_place_of_the_longest_idle_one(serve: "Serve", engine: "FakeEngine") -> None:
    service = serve(engine, max_connections=3)  # one is the test's own client
    clients = [HTTPConnection("127.0.0.1", service.port, timeout=30) for _ in range(3)]
    assert [get(client) for client in clients] == [200, 200, 200]
    assert [client.sock is not None and get(client) for client in clients[1:]] == [200, 200]
    for client in clients:
        client.close()


def keep_busy(service: "Service", engine: "FakeEngine", content: bytes, count: int) -> list[socket.socket]:
    """So many connections, and no others, each of which waits for an answer until the engine is freed."""
    service.client.close()
    engine.free.clear()
    busy = [connect(service) for _ in range(count)]
    for client in busy:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content)
    assert engine.busy.wait(30)
    return busy


def test_where_none_is_idle_one_too_many_is_503(serve: "Serve", engine: "FakeEngine", png: Png) -> None:
    service = serve(engine, max_connections=2)
    busy = keep_busy(service, engine, png(1), 2)
    with connect(service) as late:
        late.sendall(HEAD + b"Content-Length: 100\r\n\r\nnothing of it is read")
        response = HTTPResponse(late)
        response.begin()
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
        assert response.headers["Connection"] == "close"
        assert json.loads(response.read())["type"] == "urn:purigate:problem:too-many-connections"
    engine.free.set()
    for client in busy:
        answer = HTTPResponse(client)
        answer.begin()
        assert answer.status == 200
        client.close()


def test_where_none_is_idle_whoever_supervises_the_service_is_still_answered(
    serve: "Serve", engine: "FakeEngine", png: Png
) -> None:
    service = serve(engine, max_connections=2)
    busy = keep_busy(service, engine, png(1), 2)
    for path, status in (("/livez", 200), ("/readyz?verbose", 200), ("/info", 503), ("/livez/x", 503)):
        asking = HTTPConnection("127.0.0.1", service.port, timeout=30)
        assert (path, get(asking, path)) == (path, status)
        asking.close()
    with connect(service) as silent, connect(service) as late:
        assert is_closed(silent), "there is never more than one that says nothing"
        late.sendall(HEAD + b"Content-Length: 100\r\n\r\n")
        assert HTTPResponse(late).fp.readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
    with connect(service) as silent, connect(service) as late:
        assert is_closed(silent)
        late.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert HTTPResponse(late).fp.readline() == b"HTTP/1.1 200 OK\r\n"
    engine.free.set()
    for client in busy:
        client.close()


def test_what_is_no_http_is_refused_as_a_problem_and_counted(service: "Service") -> None:
    before = service.value("rejected_total", reason="malformed-request") or 0
    with connect(service) as client:
        client.sendall(b"garbage\r\n\r\n")
        response = HTTPResponse(client)
        response.begin()
        problem = json.loads(response.read())
        assert (response.status, problem["type"]) == (400, "urn:purigate:problem:malformed-request")
        assert response.headers["X-Request-ID"] == problem["request_id"]
        assert is_closed(client)
    assert service.value("rejected_total", reason="malformed-request") == before + 1


def send_until_closed(client: socket.socket, piece: bytes, most: int) -> int:
    """How many bytes went out before the server closed the connection."""
    sent = 0
    try:
        while sent < most:
            sent += client.send(piece)
    except OSError:
        pass
    return sent


def test_what_follows_a_body_in_chunks_is_bounded_as_heads_are(serve: "Serve", engine: "FakeEngine") -> None:
    service = serve(engine)
    before = service.value("rejected_total", reason="head-too-large") or 0
    with connect(service) as client:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nTrailer: ")
        assert send_until_closed(client, b"x" * 65_536, 2**26) < 2**26
    assert service.value("rejected_total", reason="head-too-large") == before + 1


def test_the_head_of_a_request_behind_another_is_bounded_too(serve: "Serve", engine: "FakeEngine", png: Png) -> None:
    service = serve(engine)
    engine.free.clear()
    content = png(1)
    with connect(service) as client:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content)
        assert engine.busy.wait(30)
        client.sendall(b"GET /livez HTTP/1.1\r\nX-Endless: ")
        assert send_until_closed(client, b"x" * 65_536, 2**26) < 2**26
    engine.free.set()
    assert service.value("rejected_total", reason="head-too-large") == 1


def test_a_body_in_many_small_chunks_is_no_endless_head(service: "Service", png: Png) -> None:
    content = png(7)
    chunks = b"".join(b"1;%b\r\n%c\r\n" % (b"e" * 1000, byte) for byte in content)
    with connect(service) as client:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        response = HTTPResponse(client)
        response.begin()
        assert response.status == 200


@pytest.mark.parametrize("asked", [b"/nowhere", b"/classify"])
def test_whoever_waits_to_be_asked_for_a_body_that_nobody_wants_is_told_so_at_once(
    service: "Service", asked: bytes
) -> None:
    with connect(service) as client:
        head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n" % asked
        client.sendall(head + b"Expect: 100-continue\r\n\r\n")
        first = client.recv(65_536)
        assert first.startswith((b"HTTP/1.1 404", b"HTTP/1.1 415"))
        assert b"100 Continue" not in first
        assert is_closed(client)


def test_whoever_waits_to_be_asked_for_a_body_that_is_wanted_is_asked(service: "Service", png: Png) -> None:
    content = png(3)
    with connect(service) as client:
        client.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(content))
        assert client.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(content)
        response = HTTPResponse(client)
        response.begin()
        assert response.status == 200


@pytest.mark.parametrize(
    ("path", "status"), [("/classify", 415), ("/nowhere", 404), ("/livez", 405)], ids=["refused", "unknown", "odd"]
)
def test_a_refusal_before_the_body_was_read_closes_the_connection(service: "Service", path: str, status: int) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n"
    with connect(service) as client:
        client.sendall(head.encode() + b"only the beginning")
        response = HTTPResponse(client)
        response.begin()
        assert (response.status, response.headers["Connection"]) == (status, "close")
        response.read()
        client.shutdown(socket.SHUT_WR)
        assert is_closed(client)


@pytest.mark.parametrize("path", ["/classify", "/nowhere"], ids=["refused", "unknown"])
def test_a_refusal_whose_whole_body_came_with_the_head_leaves_the_connection_open(
    service: "Service", path: str
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n"
    with connect(service) as client:
        for _ in range(2):
            client.sendall(head.encode() + b"hello")
            response = HTTPResponse(client)
            response.begin()
            assert response.status >= 400
            assert "Connection" not in response.headers
            response.read()


def test_a_request_whose_body_was_read_leaves_the_connection_open(service: "Service", png: Png) -> None:
    assert "Connection" not in service.post(png(1)).headers
    assert "Connection" not in service.post(b"hello").headers


def test_bodies_that_together_hold_too_many_bytes_are_503_and_their_bytes_are_given_back(
    serve: "Serve", engine: "FakeEngine", png: Png
) -> None:
    service = serve(engine, max_body_bytes=1000, max_waiting_bytes=1000)
    with connect(service) as half:
        half.sendall(HEAD + b"Content-Length: 999\r\n\r\n" + bytes(950))
        service.wait_for_value(950, "waiting_bytes")
        response = service.post(png(1))
        assert (response.status_code, response.json()["detail"]) == (503, "too many bytes wait")
    service.wait_for_value(0, "waiting_bytes")
    assert service.post(png(1)).status_code == 200
