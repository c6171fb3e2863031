"""Every row of the error table that needs no special state, over a real socket."""

import io
import select
import struct
import zlib
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from typing import TYPE_CHECKING

import httpx
import pytest
from PIL import Image

if TYPE_CHECKING:
    from models.bundle import Manifest
    from tests.integration.conftest import AssertProblem, FakeEngine, Serve, Service

Png = Callable[[int], bytes]
MEBIBYTE = 1024 * 1024
TOO_MANY = 33
FORM = {"Content-Type": "multipart/form-data; boundary=frontier"}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.fixture(scope="module")
def png_bomb() -> bytes:
    """A whole PNG of 100 megapixels in a few hundred kilobytes."""
    width = height = 10_000
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    compressor = zlib.compressobj(1)
    rows = bytes(100 * (width + 1))
    data = b"".join(compressor.compress(rows) for _ in range(height // 100)) + compressor.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def begin(service: "Service", headers: dict[str, str]) -> HTTPConnection:
    """Sends the head of a request, and leaves the body to the test."""
    connection = HTTPConnection("127.0.0.1", service.port, timeout=30)
    connection.putrequest("POST", "/classify")
    for name, value in ({"Content-Type": "image/png"} | headers).items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection


def as_httpx(response: HTTPResponse) -> httpx.Response:
    return httpx.Response(response.status, headers=response.getheaders(), content=response.read())


def encoded(file_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(buffer, file_format)
    return buffer.getvalue()


def test_an_empty_body_is_400(service: "Service", assert_problem: "AssertProblem") -> None:
    assert_problem(service.post(b""), 400, "malformed-request")


def test_an_empty_file_is_400(service: "Service", assert_problem: "AssertProblem") -> None:
    assert_problem(service.post_files(b"", path="/classify"), 400, "malformed-request")


def test_a_malformed_form_is_400(service: "Service", assert_problem: "AssertProblem") -> None:
    response = service.client.post("/classify", content=b"this is no form", headers=FORM)
    assert_problem(response, 400, "malformed-request")


def test_a_form_without_a_file_is_400(service: "Service", assert_problem: "AssertProblem") -> None:
    response = service.client.post("/classify", content=b"--frontier--\r\n", headers=FORM)
    assert_problem(response, 400, "malformed-request")


def test_two_files_for_one_answer_are_400(service: "Service", png: Png, assert_problem: "AssertProblem") -> None:
    assert_problem(service.post_files(png(1), png(2), path="/classify"), 400, "malformed-request")


@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
def test_a_part_with_another_name_is_400(
    service: "Service", png: Png, assert_problem: "AssertProblem", path: str
) -> None:
    response = service.client.post(path, files={"image": ("image", png(1))})
    assert_problem(response, 400, "malformed-request")


def test_a_text_field_is_400(service: "Service", png: Png, assert_problem: "AssertProblem") -> None:
    response = service.client.post("/classify", files={"file": ("image", png(1))}, data={"top_k": "3"})
    assert_problem(response, 400, "malformed-request")


def test_too_many_files_are_400(service: "Service", png: Png, assert_problem: "AssertProblem") -> None:
    assert_problem(service.post_files(*[png(1)] * TOO_MANY), 400, "malformed-request")


@pytest.mark.parametrize("content_type", ["image/png", FORM["Content-Type"]])
def test_a_body_that_stops_half_way_is_408(
    serve: "Serve", engine: "FakeEngine", assert_problem: "AssertProblem", content_type: str
) -> None:
    service = serve(engine, body_timeout_ms=100)
    connection = begin(service, {"Content-Type": content_type, "Content-Length": "1000"})
    connection.send(b"--frontier\r\n")
    assert_problem(as_httpx(connection.getresponse()), 408, "body-timeout")
    connection.close()


def test_a_body_that_says_it_has_50_mb_is_413_before_it_is_sent(
    service: "Service", assert_problem: "AssertProblem"
) -> None:
    connection = begin(service, {"Content-Length": str(50 * MEBIBYTE)})
    assert_problem(as_httpx(connection.getresponse()), 413, "body-too-large")
    connection.close()


def test_a_body_that_does_not_say_it_has_50_mb_is_413(service: "Service", assert_problem: "AssertProblem") -> None:
    connection = begin(service, {"Transfer-Encoding": "chunked"})
    piece = b"%x\r\n%b\r\n" % (MEBIBYTE, bytes(MEBIBYTE))
    sent = 0
    while sent < 50 and not select.select([connection.sock], [], [], 0)[0]:
        connection.send(piece)
        sent += 1
    assert_problem(as_httpx(connection.getresponse()), 413, "body-too-large")
    assert sent > 16
    connection.close()


def test_a_form_of_50_mb_is_413(service: "Service", assert_problem: "AssertProblem") -> None:
    connection = begin(service, FORM | {"Content-Length": str(50 * MEBIBYTE)})
    assert_problem(as_httpx(connection.getresponse()), 413, "body-too-large")
    connection.close()


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "application/x-www-form-urlencoded"])
def test_another_content_type_is_415(
    service: "Service", png: Png, assert_problem: "AssertProblem", content_type: str
) -> None:
    response = service.post(png(1), headers={"Content-Type": content_type})
    assert_problem(response, 415, "unsupported-image-type")


@pytest.mark.parametrize("file_format", ["GIF", "BMP", "TIFF"])
def test_another_image_format_is_415_whatever_it_calls_itself(
    service: "Service", assert_problem: "AssertProblem", file_format: str
) -> None:
    assert_problem(service.post(encoded(file_format)), 415, "unsupported-image-type")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_image_is_422(service: "Service", assert_problem: "AssertProblem", file_format: str) -> None:
    whole = encoded(file_format)
    assert_problem(service.post(whole[: len(whole) // 2]), 422, "undecodable-image")


def test_bytes_that_are_no_image_are_422(service: "Service", assert_problem: "AssertProblem") -> None:
    assert_problem(service.post(b"hello"), 422, "undecodable-image")


def test_a_png_bomb_of_100_megapixels_is_422(
    service: "Service", assert_problem: "AssertProblem", png_bomb: bytes
) -> None:
    assert_problem(service.post(png_bomb), 422, "too-many-pixels")


@pytest.mark.parametrize("top_k", ["0", "-1", "x", "1.5", "", "9" * 5000])
def test_a_bad_top_k_is_422(service: "Service", png: Png, assert_problem: "AssertProblem", top_k: str) -> None:
    response = service.post(png(1), params={"top_k": top_k})
    assert_problem(response, 422, "invalid-parameter")
    assert "top_k" in response.json()["detail"]


def test_an_unknown_path_is_404(service: "Service", assert_problem: "AssertProblem") -> None:
    assert_problem(service.client.get("/admin"), 404, "not-found")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_another_method_is_405_and_says_which_is_allowed(
    service: "Service", assert_problem: "AssertProblem", method: str
) -> None:
    response = service.client.request(method, "/classify")
    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["Allow"] == "POST"


def test_a_bug_of_ours_is_500_and_says_nothing_of_the_inside(
    serve: "Serve", engine: "FakeEngine", manifest: "Manifest", png: Png, assert_problem: "AssertProblem"
) -> None:
    engine.manifest = manifest.model_copy(update={"labels": ("only",)})
    response = serve(engine).post(png(1))
    assert_problem(response, 500, "internal")
    for telling in ("Traceback", "IndexError", "tuple", ".py"):
        assert telling not in response.text


def test_after_a_bug_of_ours_others_are_answered(
    serve: "Serve", engine: "FakeEngine", manifest: "Manifest", png: Png
) -> None:
    engine.manifest = manifest.model_copy(update={"labels": ("only",)})
    service = serve(engine)
    service.post(png(1))
    assert service.post(png(255), params={"top_k": 1}).json()["label"] == "only"


def test_the_request_id_of_the_client_comes_back_with_an_error(service: "Service") -> None:
    response = service.post(b"", headers={"X-Request-ID": "mine"})
    assert (response.headers["X-Request-ID"], response.json()["request_id"]) == ("mine", "mine")


def test_one_bad_image_refuses_its_batch_and_is_named(
    service: "Service", png: Png, assert_problem: "AssertProblem"
) -> None:
    response = service.post_files(png(1), b"hello", png(2))
    assert_problem(response, 422, "undecodable-image")
    assert response.json()["detail"].startswith("image 2 of 3: the bytes are no image")
    assert service.post_files(b"hello").json()["detail"].startswith("the bytes are no image")


def test_a_batch_that_breaks_off_is_400_and_not_answered_in_part(
    service: "Service", png: Png, assert_problem: "AssertProblem"
) -> None:
    head = b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    body = head + png(1) + b"\r\n" + head + png(2)[:-20]
    response = service.client.post("/classify/batch", content=body, headers=FORM)
    assert_problem(response, 400, "malformed-request")


def test_a_form_in_a_strange_charset_is_no_bug_of_ours(service: "Service", png: Png) -> None:
    request = service.client.build_request("POST", "/classify", files={"file": ("image", png(1))})
    request.headers["Content-Type"] += "; charset=undefined"
    assert service.client.send(request).status_code in {200, 400}
