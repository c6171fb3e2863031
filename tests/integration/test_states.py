"""What clients see while the service loads, drains, is too busy or has a broken device, and what their leaving does."""

import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import AssertProblem, FakeEngine, Serve, Service

Png = Callable[[int], bytes]
Post = Callable[["Service", bytes], "Future[httpx.Response]"]
PATIENCE_SECONDS = 30
HOLDING = 7


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(40) as pool:
        yield pool


@pytest.fixture
def ask(pool: ThreadPoolExecutor) -> Post:
    """Asks about an image without waiting for the answer."""
    return lambda service, content: pool.submit(service.post, content)


@pytest.fixture
def hold(ask: Post, engine: "FakeEngine", png: Png) -> Callable[["Service"], "Future[httpx.Response]"]:
    """Gives the engine a query that it keeps until it is freed."""

    def hold(service: "Service") -> "Future[httpx.Response]":
        engine.free.clear()
        held = ask(service, png(HOLDING))
        assert engine.busy.wait(PATIENCE_SECONDS)
        return held

    return hold


Hold = Callable[["Service"], "Future[httpx.Response]"]


def test_while_it_loads_it_is_alive_but_not_ready(
    serve: "Serve", engine: "FakeEngine", png: Png, assert_problem: "AssertProblem"
) -> None:
    engine.warm.clear()
    service = serve(engine, wait=False)
    assert service.client.get("/livez").status_code == 200
    readiness = service.client.get("/readyz")
    assert (readiness.status_code, readiness.json()) == (503, {"status": "loading"})
    assert service.value("ready") == 0
    response = service.post(png(1))
    assert_problem(response, 503, "not-ready")
    assert int(response.headers["Retry-After"]) >= 1


def test_once_it_has_warmed_up_it_is_ready(serve: "Serve", engine: "FakeEngine", png: Png) -> None:
    engine.warm.clear()
    service = serve(engine, wait=False)
    engine.warm.set()
    service.wait_for_state("ready")
    assert service.value("ready") == 1
    assert service.post(png(1)).status_code == 200


def test_a_full_queue_is_503_and_says_when_to_come_back(
    serve: "Serve", engine: "FakeEngine", ask: Post, hold: Hold, png: Png, assert_problem: "AssertProblem"
) -> None:
    service = serve(engine, queue_capacity=2, max_images_per_request=2)
    accepted = [hold(service), ask(service, png(1)), ask(service, png(2))]
    service.wait_for_value(2, "queue_depth")
    response = service.post(png(3))
    assert_problem(response, 503, "queue-full")
    assert int(response.headers["Retry-After"]) >= 1
    assert service.value("rejected_total", reason="queue-full") == 1
    engine.free.set()
    assert [one.result().status_code for one in accepted] == [200, 200, 200]


def test_while_it_drains_it_refuses_new_queries_and_answers_those_it_has(
    serve: "Serve", engine: "FakeEngine", ask: Post, hold: Hold, png: Png, assert_problem: "AssertProblem"
) -> None:
    service = serve(engine)
    accepted = [hold(service), ask(service, png(1))]
    service.wait_for_value(1, "queue_depth")
    assert service.server._state
    service.server._state["gateway"].drain_soon()
    service.wait_for_state("draining")
    response = service.post(png(2))
    assert_problem(response, 503, "not-ready")
    assert "Retry-After" in response.headers
    assert service.value("ready") == 0
    engine.free.set()
    assert [one.result().status_code for one in accepted] == [200, 200]


def test_the_signal_to_stop_begins_the_draining(
    serve: "Serve", engine: "FakeEngine", hold: Hold, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    service = serve(engine)
    held = hold(service)
    assert service.server._state
    gateway = service.server._state["gateway"]
    service.server.handle_exit(signal.SIGTERM, None)
    eventually(lambda: gateway.readiness.state == "draining")
    engine.free.set()
    assert held.result().status_code == 200


def test_what_is_not_answered_by_the_end_of_the_draining_is_503_and_no_bug(
    serve: "Serve", engine: "FakeEngine", hold: Hold, assert_problem: "AssertProblem"
) -> None:
    service = serve(engine, drain_timeout_ms=1000)
    held = hold(service)
    service.server.handle_exit(signal.SIGTERM, None)
    response = held.result()
    assert_problem(response, 503, "not-ready")
    assert "Retry-After" in response.headers
    engine.free.set()


def test_a_query_that_the_device_failed_on_is_503(
    serve: "Serve", engine: "FakeEngine", png: Png, assert_problem: "AssertProblem"
) -> None:
    service = serve(engine)
    engine.fault = RuntimeError("CUDA error: an illegal memory access at 0xdeadbeef")
    response = service.post(png(1))
    assert_problem(response, 503, "device-fault")
    assert "Retry-After" in response.headers
    assert "CUDA" not in response.text


def test_after_a_device_fault_it_is_not_ready_until_it_has_recovered(
    serve: "Serve", engine: "FakeEngine", png: Png, assert_problem: "AssertProblem"
) -> None:
    service = serve(engine)
    engine.warm.clear()
    engine.fault = RuntimeError("CUDA error")
    service.post(png(1))
    engine.fault = None
    assert service.client.get("/readyz").json() == {"status": "fault"}
    assert_problem(service.post(png(2)), 503, "not-ready")
    engine.warm.set()
    service.wait_for_state("ready")
    assert service.post(png(3)).status_code == 200


def test_an_answer_that_is_not_there_in_time_is_504(
    serve: "Serve", engine: "FakeEngine", png: Png, assert_problem: "AssertProblem"
) -> None:
    service = serve(engine, request_deadline_ms=50)
    engine.free.clear()
    assert_problem(service.post(png(1)), 504, "deadline-passed")


def test_the_engine_never_sees_a_query_whose_client_left(
    serve: "Serve", engine: "FakeEngine", hold: Hold, png: Png
) -> None:
    service = serve(engine)
    held = hold(service)
    content = png(1)
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(head.encode() + content)
        service.wait_for_value(1, "queue_depth")
    service.wait_for_value(1, "cancelled_total")
    engine.free.set()
    assert held.result().status_code == 200
    assert service.post(png(2)).status_code == 200
    assert engine.seen() == [HOLDING, 2]
    assert service.value("http_requests_total", route="/classify", code="499") == 1


def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(
    serve: "Serve", engine: "FakeEngine", png: Png
) -> None:
    service = serve(engine)
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\nhalf"
        )
    service.wait_for_value(1, "http_requests_total", route="/classify", code="499")
    assert service.post(png(1)).status_code == 200
    assert engine.seen() == [1]


def test_bad_images_harm_no_request_that_is_in_flight(
    serve: "Serve", engine: "FakeEngine", ask: Post, hold: Hold, png: Png
) -> None:
    service = serve(engine)
    held = hold(service)
    good = [ask(service, png(red)) for red in range(1, 11)]
    service.wait_for_value(10, "queue_depth")
    bad = [service.post(content) for content in (b"", b"hello", b"GIF89a", png(1)[:40])]
    engine.free.set()
    assert [response.status_code for response in bad] == [400, 422, 415, 422]
    assert [one.result().json()["scores"][0]["label"] for one in (held, *good)] == ["bird"] * 11
    assert [one.result().json()["scores"][1]["score"] for one in good] == [
        pytest.approx(red / 255) for red in range(1, 11)
    ]


def test_queries_of_many_clients_go_to_the_device_together(
    serve: "Serve",
    engine: "FakeEngine",
    ask: Post,
    hold: Hold,
    png: Png,
    eventually: Callable[[Callable[[], bool]], None],
) -> None:
    service = serve(engine, max_batch=16)
    asked = [hold(service), *(ask(service, png(red)) for red in range(20))]
    assert service.server._state
    gateway = service.server._state["gateway"]
    eventually(lambda: gateway._lane.depth == 20)  # the metric counts those that are still decoded, too
    engine.free.set()
    assert [one.result().status_code for one in asked] == [200] * 21
    assert [len(batch) for batch in engine.batches] == [1, 16, 4]
