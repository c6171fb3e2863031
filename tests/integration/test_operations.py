"""What operators and their tools see, over a real socket."""

import socket
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from tests.integration.conftest import FakeEngine, Serve, Service

Png = Callable[[int], bytes]
PROMISED = {
    "purigate_http_requests_total": {"route", "method", "code"},
    "purigate_http_request_duration_seconds_count": {"route"},
    "purigate_queries_total": {"outcome"},
    "purigate_stage_duration_seconds_count": {"stage"},
    "purigate_device_seconds_total": {"stage"},
    "purigate_device_hour_price_dollars": set(),
    "purigate_batch_size_count": set(),
    "purigate_queue_depth": set(),
    "purigate_queue_capacity": set(),
    "purigate_rejected_total": {"reason"},
    "purigate_cancelled_total": set(),
    "purigate_purifier_selected_total": {"purifier"},
    "purigate_pool_size": set(),
    "purigate_quota_store_degraded": set(),
    "purigate_ready": set(),
    "purigate_build_info": {"version", "device", "precision"},
    "purigate_bundle_info": {"name", "version", "defense"},
}


def families(service: "Service") -> list[Metric]:
    return list(text_string_to_metric_families(service.client.get("/metrics").text))


def labels_of(service: "Service", sample_name: str, label: str) -> set[str]:
    samples = (sample for family in families(service) for sample in family.samples)
    return {sample.labels[label] for sample in samples if sample.name == sample_name}


def raw(service: "Service", sent: bytes) -> int:
    """The status that is answered to bytes as they are."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as client:
        client.sendall(sent)
        response = HTTPResponse(client)
        response.begin()
        return response.status


def test_every_metric_that_was_promised_is_there_after_a_query(real_service: "Service", png: Png) -> None:
    assert real_service.post(png(1)).status_code == 200
    real_service.post(b"hello")
    found = {sample.name: set(sample.labels) for family in families(real_service) for sample in family.samples}
    assert {name: found.get(name) for name in PROMISED} == PROMISED


def test_every_stage_of_a_query_is_timed(real_service: "Service", png: Png) -> None:
    real_service.post(png(1))
    stages = labels_of(real_service, "purigate_stage_duration_seconds_count", "stage")
    assert stages == {"decode", "queue", "purify", "classify"}


def test_every_metric_bears_the_prefix(real_service: "Service") -> None:
    assert [family.name for family in families(real_service) if not family.name.startswith("purigate_")] == []


def test_requests_are_counted_by_route_method_and_code(serve: "Serve", engine: "FakeEngine", png: Png) -> None:
    service = serve(engine)
    service.post(png(1))
    service.post(b"hello")
    service.client.get("/classify")
    counted = [
        service.value("http_requests_total", route="/classify", method=method, code=code)
        for method, code in (("POST", "200"), ("POST", "422"), ("GET", "405"))
    ]
    assert counted == [1, 1, 1]


def test_queries_count_images_and_not_requests(serve: "Serve", engine: "FakeEngine", png: Png) -> None:
    service = serve(engine)
    service.post_files(png(1), png(2), png(3))
    assert service.value("queries_total", outcome="answered") == 3


def test_refused_requests_are_counted_by_reason(serve: "Serve", engine: "FakeEngine") -> None:
    service = serve(engine)
    service.post(b"hello")
    service.post(b"")
    assert labels_of(service, "purigate_rejected_total", "reason") == {"undecodable-image", "malformed-request"}


def test_a_path_that_does_not_exist_becomes_no_label(service: "Service") -> None:
    for path in ("/secret-path", "/classify/secret-path", "/%2e%2e/secret-path"):
        service.client.get(path)
    assert "secret-path" not in service.client.get("/metrics").text


def test_a_method_that_nobody_knows_becomes_no_label(service: "Service") -> None:
    service.client.request("PROPFIND", "/classify")
    methods = labels_of(service, "purigate_http_requests_total", "method")
    assert methods <= {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "unmatched"}


def test_the_queue_and_the_price_are_told_as_they_are_set(serve: "Serve", engine: "FakeEngine") -> None:
    service = serve(engine, queue_capacity=77, device_hour_price_dollars=1.5)
    assert (service.value("queue_capacity"), service.value("device_hour_price_dollars")) == (77, 1.5)


def test_the_pool_is_as_large_as_the_engine_says_now(serve: "Serve", engine: "FakeEngine") -> None:
    service = serve(engine)
    assert service.value("pool_size") == 1
    engine.purifiers = ("one", "another", "a-third")
    assert service.value("pool_size") == 3


def test_the_info_tells_what_is_served_and_within_which_limits(real_service: "Service") -> None:
    info = real_service.client.get("/info").json()
    assert info["bundle"] == {"name": "toy", "version": "1"}
    assert info["labels"] == ["airplane", "bird", "cat", "deer"]
    assert info["purifiers"] == ["fgsm-edsr", "fgsm-rcan", "pgd-edsr", "pgd-rcan"]
    assert (info["input"], info["defense"]) == ({"height": 32, "width": 32}, "puridefense")
    assert info["image_types"] == ["image/jpeg", "image/png", "image/webp"]
    assert (info["max_body_bytes"], info["max_images_per_request"]) == (16 * 1024 * 1024, 32)


def test_the_openapi_document_lists_the_routes(service: "Service") -> None:
    paths = service.client.get("/openapi.json").json()["paths"]
    assert {path: sorted(operations) for path, operations in paths.items()} == {
        "/classify": ["post"],
        "/classify/batch": ["post"],
        "/livez": ["get"],
        "/readyz": ["get"],
        "/metrics": ["get"],
        "/info": ["get"],
        "/admin/reload": ["post"],
    }


@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
def test_the_openapi_document_lists_every_problem_of_the_table(service: "Service", path: str) -> None:
    responses = service.client.get("/openapi.json").json()["paths"][path]["post"]["responses"]
    assert sorted(responses) == ["200", "400", "401", "408", "413", "415", "422", "429", "500", "503", "504"]
    problems = [set(response["content"]) for status, response in responses.items() if status != "200"]
    assert problems == [{"application/problem+json"}] * 10


def test_the_openapi_document_says_what_may_be_sent(service: "Service") -> None:
    body = service.client.get("/openapi.json").json()["paths"]["/classify"]["post"]["requestBody"]
    assert sorted(body["content"]) == ["image/jpeg", "image/png", "image/webp", "multipart/form-data"]


def test_the_docs_can_be_read(service: "Service") -> None:
    response = service.client.get("/docs")
    assert response.status_code == 200
    assert "/openapi.json" in response.text


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/info", "/nowhere"])
def test_every_answer_bears_a_request_id(service: "Service", path: str) -> None:
    assert service.client.get(path, headers={"X-Request-ID": "mine"}).headers["X-Request-ID"] == "mine"


@pytest.mark.parametrize("path", ["/classify", "/livez", "/nowhere"])
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PATCH", "PROPFIND"])
def test_odd_methods_are_refused(service: "Service", method: str, path: str) -> None:
    assert service.client.request(method, path).status_code in {404, 405}


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_400(service: "Service", sent: bytes) -> None:
    assert raw(service, sent) == 400


def test_a_huge_header_does_no_harm(service: "Service") -> None:
    connection = HTTPConnection("127.0.0.1", service.port, timeout=30)
    with suppress(ConnectionError):  # it may be cut off before all is sent
        connection.request("GET", "/livez", headers={"X-Padding": "x" * 1_000_000})
    assert connection.getresponse().status == 431
    connection.close()
    assert service.client.get("/livez").status_code == 200


def test_an_attempt_at_a_websocket_does_no_harm(service: "Service") -> None:
    handshake = (
        b"GET /classify HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert raw(service, handshake) in {400, 403, 404, 405}
    assert service.client.get("/livez").status_code == 200


def test_an_answer_does_not_name_the_server_software(service: "Service") -> None:
    assert "server" not in service.client.get("/livez").headers


def test_two_services_in_one_process_count_apart(serve: "Serve", engine: "FakeEngine", png: Png) -> None:
    one, other = serve(engine), serve(engine)
    one.post(png(1))
    answered: list[float | None] = [service.value("queries_total", outcome="answered") for service in (one, other)]
    assert answered == [1, 0]


def test_probes_are_answered_while_the_device_is_busy(serve: "Serve", engine: "FakeEngine", png: Png) -> None:
    service = serve(engine, request_deadline_ms=300)
    engine.free.clear()
    with httpx.Client(base_url=service.client.base_url, timeout=30) as other:
        assert service.post(png(1)).status_code == 504
        assert [other.get(path).status_code for path in ("/livez", "/readyz", "/metrics")] == [200] * 3
