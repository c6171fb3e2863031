"""How much the holder of a key may ask, over a real socket; two replicas share a real Redis."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from service.keys import KeysFile

if TYPE_CHECKING:
    from tests.conftest import RedisServer
    from tests.integration.conftest import AssertProblem, FakeEngine, Launch, Serve, Service

Png = Callable[[int], bytes]
PURIGATE = str(Path(sys.executable).with_name("purigate"))
QUOTA = 120
CLIENTS = 50
EACH_ASKS = 5


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def header(keys_file: Path) -> dict[str, str]:
    """Of a key that may ask about three images a day."""
    keys, secret = KeysFile().issue("alice", quota="3/day")
    keys.write(keys_file)
    return {"X-API-Key": secret}


@pytest.fixture
def service(serve: "Serve", engine: "FakeEngine", keys_file: Path, header: dict[str, str]) -> "Service":  # noqa: ARG001 - the file
    return serve(engine, keys_file=keys_file)


def post_files(service: "Service", header: dict[str, str], *contents: bytes) -> httpx.Response:
    files = [("file", ("image", content)) for content in contents]
    return service.client.post("/classify/batch", files=files, headers=header)


def test_an_answer_tells_what_is_left(service: "Service", header: dict[str, str], png: Png) -> None:
    response = service.post(png(1), headers=header)
    assert response.headers["RateLimit-Policy"] == '"day";q=3;w=86400'
    assert response.headers["RateLimit"].startswith('"day";r=2;t=')


def test_over_quota_is_429_and_says_when_to_come_back(
    service: "Service", header: dict[str, str], png: Png, assert_problem: "AssertProblem"
) -> None:
    assert [service.post(png(1), headers=header).status_code for _ in range(3)] == [200, 200, 200]
    response = service.post(png(1), headers=header)
    assert_problem(response, 429, "quota-exceeded")
    assert 0 < int(response.headers["Retry-After"]) <= 2 * 86_400
    assert response.headers["RateLimit"].startswith('"day";r=0;t=')
    assert service.value("rejected_total", reason="quota-exceeded") == 1
    assert service.value("queries_total", outcome="rejected") == 1
    assert service.value("key_queries_total", key="alice", outcome="refused") == 1
    assert service.post(png(1), headers=header).status_code == 429
    assert service.value("key_queries_total", key="alice", outcome="refused") == 2


def test_a_batch_counts_every_image(
    service: "Service", header: dict[str, str], png: Png, assert_problem: "AssertProblem"
) -> None:
    assert post_files(service, header, png(1), png(2)).status_code == 200
    assert_problem(post_files(service, header, png(1), png(2)), 429, "quota-exceeded")
    assert service.post(png(1), headers=header).status_code == 200


def test_the_engine_sees_nothing_that_is_over_quota(
    service: "Service", engine: "FakeEngine", header: dict[str, str], png: Png
) -> None:
    for red in range(1, 6):
        service.post(png(red), headers=header)
    assert engine.seen() == [1, 2, 3]


def test_a_key_without_a_quota_is_told_of_none(serve: "Serve", engine: "FakeEngine", keys_file: Path, png: Png) -> None:
    keys, secret = KeysFile().issue("bob")
    keys.write(keys_file)
    response = serve(engine, keys_file=keys_file).post(png(1), headers={"X-API-Key": secret})
    assert response.status_code == 200
    assert "RateLimit" not in response.headers


def test_an_image_that_cannot_be_decoded_counts_too(service: "Service", header: dict[str, str]) -> None:
    response = service.post(b"hello", headers=header)
    assert response.status_code == 422
    assert response.headers["RateLimit"].startswith('"day";r=2;')


def test_what_the_service_itself_refuses_does_not_count(
    service: "Service", engine: "FakeEngine", header: dict[str, str], png: Png
) -> None:
    engine.warm.clear()
    engine.fault = RuntimeError("CUDA error")
    service.post(png(1), headers=header)
    engine.fault = None
    assert [service.post(png(1), headers=header).status_code for _ in range(5)] == [503] * 5
    engine.warm.set()
    service.wait_for_state("ready")
    assert [service.post(png(1), headers=header).status_code for _ in range(3)] == [200, 200, 429]


def test_what_the_service_refuses_once_it_was_read_does_not_count(
    service: "Service", engine: "FakeEngine", header: dict[str, str], png: Png
) -> None:
    def while_it_is_sent() -> Iterator[bytes]:
        yield png(1)[:20]
        service.wait_for_value(20, "waiting_bytes")
        engine.warm.clear()
        engine.fault = RuntimeError("CUDA error")
        service.post(png(1), headers=header)
        engine.fault = None
        yield png(1)[20:]

    late = service.client.post("/classify", content=while_it_is_sent(), headers=header | {"Content-Type": "image/png"})
    assert late.status_code == 503
    engine.warm.set()
    service.wait_for_state("ready")
    assert [service.post(png(1), headers=header).status_code for _ in range(3)] == [200, 200, 429]


def test_under_deny_a_lost_redis_is_503(
    serve: "Serve",
    engine: "FakeEngine",
    keys_file: Path,
    header: dict[str, str],
    png: Png,
    redis_server: "RedisServer",
    assert_problem: "AssertProblem",
) -> None:
    service = serve(engine, keys_file=keys_file, redis_url=redis_server.url, quota_fallback="deny")
    assert service.value("quota_store_degraded") == 0
    assert service.post(png(1), headers=header).status_code == 200
    redis_server.kill()
    response = service.post(png(1), headers=header)
    assert_problem(response, 503, "quota-unavailable")
    assert response.headers["Retry-After"] == "1"
    assert service.value("quota_store_degraded") == 1
    assert service.value("queries_total", outcome="rejected") == 1


def test_the_deadline_holds_for_a_redis_that_hangs_too(
    serve: "Serve",
    engine: "FakeEngine",
    keys_file: Path,
    header: dict[str, str],
    png: Png,
    redis_server: "RedisServer",
    assert_problem: "AssertProblem",
) -> None:
    service = serve(
        engine, keys_file=keys_file, redis_url=redis_server.url, redis_timeout_ms=60_000, request_deadline_ms=2000
    )
    assert service.post(png(1), headers=header).status_code == 200
    redis_server.hang()
    try:
        assert_problem(service.post(png(1), headers=header), 504, "deadline-passed")
    finally:
        redis_server.go_on()
    assert service.value("queries_total", outcome="deadline") == 1
    assert engine.seen() == [1]


def test_two_processes_on_one_redis_let_exactly_the_quota_through(
    launch: "Launch", bundle_folder: Path, keys_file: Path, png: Png, redis_server: "RedisServer"
) -> None:
    keys, secret = KeysFile().issue("alice", quota=f"{QUOTA}/day")
    keys.write(keys_file)
    flags = ("--redis-url", redis_server.url, "--redis-timeout-ms", "10000", "--keys-file", keys_file)
    serve = (PURIGATE, "serve", "--port", "0", "--device", "cpu", "--bundle", bundle_folder)
    processes = [launch(*serve, *flags) for _ in range(2)]
    ports = [process.wait_for_port() for process in processes]
    for process, port in zip(processes, ports, strict=True):
        process.wait_for_answer(port)

    def ask(client: int) -> list[int]:
        headers = {"X-API-Key": secret, "Content-Type": "image/png"}
        with httpx.Client(base_url=f"http://127.0.0.1:{ports[client % 2]}", headers=headers, timeout=60) as http:
            return [http.post("/classify", content=png(client)).status_code for _ in range(EACH_ASKS)]

    with ThreadPoolExecutor(CLIENTS) as pool:
        told = Counter(status for statuses in pool.map(ask, range(CLIENTS)) for status in statuses)
    assert told == {200: QUOTA, 429: CLIENTS * EACH_ASKS - QUOTA}
