"""Metrics on a port of their own."""

import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from tests.integration.conftest import AssertProblem, FakeEngine, Launch, Serve, Service

Png = Callable[[int], bytes]
Eventually = Callable[[Callable[[], bool]], None]
PURIGATE = str(Path(sys.executable).with_name("purigate"))


@pytest.fixture
def metrics_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def service(serve: "Serve", engine: "FakeEngine", metrics_port: int) -> "Service":
    return serve(engine, metrics_port=metrics_port)


def scrape(port: int) -> dict[str, float]:
    """Samples without labels by their names."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").raise_for_status().text
    families = text_string_to_metric_families(text)
    return {one.name: one.value for family in families for one in family.samples if not one.labels}


@pytest.mark.usefixtures("service")
def test_the_metrics_are_there(metrics_port: int) -> None:
    assert scrape(metrics_port)["purigate_ready"] == 1


def test_they_are_not_on_the_port_of_the_public(service: "Service", assert_problem: "AssertProblem") -> None:
    assert_problem(service.client.get("/metrics"), 404, "not-found")
    assert "/metrics" not in service.client.get("/openapi.json").json()["paths"]


def test_nothing_is_served_beside_them(service: "Service", metrics_port: int, png: Png) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{metrics_port}") as client:
        answer = client.post("/classify", content=png(1), headers={"Content-Type": "image/png"})
        assert "label" not in answer.text
        assert client.get("/info").text.startswith("# HELP"), "whatever is asked for, metrics are the answer"
    assert service.engine.seen() == []  # type: ignore[attr-defined]


def test_they_tell_of_the_drain_until_it_is_over(
    service: "Service", engine: "FakeEngine", metrics_port: int, png: Png, eventually: Eventually
) -> None:
    engine.free.clear()
    with ThreadPoolExecutor(1) as pool:
        in_flight = pool.submit(service.post, png(1))
        assert engine.busy.wait(30)
        service.server.handle_exit(signal.SIGTERM, None)
        eventually(lambda: scrape(metrics_port)["purigate_ready"] == 0)
        engine.free.set()
        assert in_flight.result().status_code == 200


def test_after_the_stop_the_port_is_free(service: "Service", metrics_port: int) -> None:
    service.stop()
    with pytest.raises(httpx.ConnectError):
        scrape(metrics_port)


def test_a_port_that_is_taken_ends_the_start(bundle_folder: Path, launch: "Launch") -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = launch(PURIGATE, "serve", "--port", "0", "--bundle", bundle_folder, "--metrics-port", port)
        assert process.wait() != 0
    assert f"Address already in use: '127.0.0.1:{port}'" in "\n".join(process.stdout)
