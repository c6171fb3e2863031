"""Untrusted bodies, bounded in bytes and time."""

import asyncio
import encodings
from collections.abc import Iterator
from contextlib import suppress

import pytest
from fastapi import Request
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.types import Message

from service.bodies import Bodies
from service.body import read_images
from service.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    GatewayError,
    MalformedRequestError,
    QueueFullError,
    UnsupportedImageTypeError,
)
from service.metrics import Metrics
from service.settings import Settings

BOUNDARY = b"frontier"
MULTIPART = "multipart/form-data; boundary=frontier"
LIMIT = 10_000
ROOM = 100 * LIMIT
SETTINGS = Settings(max_body_bytes=LIMIT)


class Body:
    """A request whose body comes in chunks; after the last one its client stays silent, or leaves.

    Attributes:
        unread: chunks that nobody has asked for yet.
    """

    def __init__(
        self,
        chunks: list[bytes],
        content_type: str | None = "image/png",
        *,
        length: int | str | None = None,
        ends: bool = True,
        leaves: bool = False,
        room: int = ROOM,
    ) -> None:
        self.metrics = Metrics()
        self.bodies = Bodies(room, self.metrics)
        self.unread = list(chunks)
        self.ends = ends
        self.leaves = leaves
        headers = [] if content_type is None else [(b"content-type", content_type.encode())]
        if length is not None:
            headers.append((b"content-length", str(length).encode()[:6000]))
        self.request = Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, self.receive)

    async def receive(self) -> Message:
        if self.unread:
            chunk = self.unread.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(self.unread) or not self.ends}
        if self.leaves:
            return {"type": "http.disconnect"}
        if self.ends:
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError("nothing more comes")

    async def images(self, max_images: int = 3, settings: Settings = SETTINGS) -> list[bytes]:
        with self.bodies.open() as body:
            return await read_images(self.request, settings, max_images, body)


def part(content: bytes, disposition: bytes = b'form-data; name="file"; filename="f"') -> bytes:
    return b"--%b\r\nContent-Disposition: %b\r\n\r\n%b\r\n" % (BOUNDARY, disposition, content)


def form(*contents: bytes) -> bytes:
    return b"".join(map(part, contents)) + b"--" + BOUNDARY + b"--\r\n"


def pieces(content: bytes, sizes: Iterator[int]) -> list[bytes]:
    chunks = []
    while content:
        size = next(sizes)
        chunks.append(content[:size])
        content = content[size:]
    return chunks


async def test_a_raw_body_is_one_image() -> None:
    assert await Body([b"ab", b"", b"cd"]).images() == [b"abcd"]


@pytest.mark.parametrize("content_type", ["image/jpeg", "IMAGE/PNG", " image/webp ; q=1", "image/whatever"])
async def test_any_image_type_is_read_since_the_bytes_decide(content_type: str) -> None:
    assert await Body([b"x"], content_type).images() == [b"x"]


async def test_parts_are_images_in_the_order_sent() -> None:
    assert await Body([form(b"one", b"two", b"three")], MULTIPART).images() == [b"one", b"two", b"three"]


@given(
    contents=st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=3), sizes=st.lists(st.integers(1, 60))
)
@settings(deadline=None, max_examples=60)
def test_however_a_form_is_cut_into_chunks_its_images_are_the_same(contents: list[bytes], sizes: list[int]) -> None:
    def endless() -> Iterator[int]:
        yield from sizes
        while True:
            yield 7

    assert asyncio.run(Body(pieces(form(*contents), endless()), MULTIPART).images()) == contents


@given(body=st.binary(max_size=300), prefix=st.sampled_from([b"", b"--frontier\r\n", part(b"x"), form(b"x")]))
@settings(deadline=None, max_examples=150)
def test_any_bytes_called_a_form_give_images_or_an_error_that_their_sender_may_know(body: bytes, prefix: bytes) -> None:
    try:
        images = asyncio.run(Body([prefix + body + b"\r\n" + form()], MULTIPART).images())
    except GatewayError:
        return
    assert all(images)


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "application/octet-stream", "imagepng"],
)
async def test_what_calls_itself_neither_image_nor_form_is_not_served(content_type: str | None) -> None:
    with pytest.raises(UnsupportedImageTypeError, match="send image/jpeg"):
        await Body([b"x"], content_type).images()


async def test_an_empty_body_is_malformed() -> None:
    with pytest.raises(MalformedRequestError, match="empty"):
        await Body([]).images()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        form(),
        b"no form at all",
        part(b"x")[:-30],
        form(b""),
        form(b"x", b""),
        form(b"1", b"2", b"3", b"4"),
        part(b"x", b'form-data; name="image"; filename="f"') + form(b"x"),
        part(b"x", b'form-data; name="file"') + form(b"x"),
        part(b"x", b'form-data; filename="f"') + form(b"x"),
        part(b"x", b"") + form(b"x"),
    ],
    ids=[
        "nothing",
        "no part",
        "no boundary in it",
        "cut off in its head",
        "an empty file",
        "one file of two empty",
        "too many files",
        "another name",
        "text instead of a file",
        "no name",
        "no disposition",
    ],
)
async def test_a_form_is_malformed_with(body: bytes) -> None:
    with pytest.raises(MalformedRequestError):
        await Body([body], MULTIPART).images()


@pytest.mark.parametrize("missing", [4, 20, 40])
async def test_a_form_that_breaks_off_is_malformed_even_if_some_of_its_files_are_whole(missing: int) -> None:
    with pytest.raises(MalformedRequestError):
        await Body([form(b"whole", b"broken" * 9)[:-missing]], MULTIPART).images()


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary="])
async def test_a_form_without_a_boundary_is_malformed(content_type: str) -> None:
    with pytest.raises(MalformedRequestError):
        await Body([form(b"x")], content_type).images()


@pytest.mark.parametrize("charset", ["undefined", "punycode", "idna", "utf-16"])
async def test_the_charset_of_a_form_says_nothing_for_there_is_no_text_in_it(charset: str) -> None:
    body = part(b"x", b'form-data; name="file"; filename="xn--a"') + form(b"x")
    assert await Body([body], f"{MULTIPART}; charset={charset}").images() == [b"x", b"x"]


async def test_charsets_that_a_client_invents_are_not_kept() -> None:
    kept = vars(encodings)["_cache"]  # Python's own, which never forgets
    known = len(kept)
    for number in range(5):
        await Body([form(b"x")], f"{MULTIPART}; charset=invented-{number}").images()
        encoded = b"form-data; name=\"file\"; filename*=invented-%d''x" % number
        with suppress(MalformedRequestError):
            await Body([part(b"x", encoded) + form(b"x")], MULTIPART).images()

    assert len(kept) == known


@pytest.mark.parametrize("boundary", ["plain", '"in quotes"', "a'b+c_d", '"semi;colon"'])
async def test_a_boundary_is_what_the_content_type_says(boundary: str) -> None:
    body = form(b"x").replace(BOUNDARY, boundary.strip('"').encode())
    assert await Body([body], f"multipart/form-data; boundary={boundary}").images() == [b"x"]


@pytest.mark.parametrize("length", ["0" * 5000 + "1", "0", "-1", "1e3", "٣"])
async def test_a_length_that_is_written_oddly_is_no_bug_of_ours(length: str) -> None:
    assert await Body([b"x"], length=length).images() == [b"x"]


@pytest.mark.parametrize("length", ["9" * 5000, "0" * 5000 + str(LIMIT + 1)])
async def test_a_length_beyond_all_measure_is_too_large(length: str) -> None:
    with pytest.raises(BodyTooLargeError):
        await Body([b"x"], length=length).images()


@pytest.mark.parametrize("content_type", ["image/png", MULTIPART])
async def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(content_type: str) -> None:
    body = Body([b"x"], content_type, length=LIMIT + 1)
    with pytest.raises(BodyTooLargeError):
        await body.images()
    assert body.unread == [b"x"]


@pytest.mark.parametrize("content_type", ["image/png", MULTIPART])
async def test_a_body_is_read_no_further_than_the_limit(content_type: str) -> None:
    body = Body([part(b"x" * LIMIT)[:LIMIT], b"y", b"z"], content_type)
    with pytest.raises(BodyTooLargeError):
        await body.images()
    assert body.unread == [b"z"]


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    assert await Body([b"x" * LIMIT], length=LIMIT).images() == [b"x" * LIMIT]


@pytest.mark.parametrize("content_type", ["image/png", MULTIPART])
async def test_a_body_that_says_it_has_no_room_is_refused_before_it_is_read(content_type: str) -> None:
    body = Body([b"x"], content_type, length=LIMIT, room=LIMIT - 1)
    with pytest.raises(QueueFullError):
        await body.images()
    assert body.unread == [b"x"]


@pytest.mark.parametrize("content_type", ["image/png", MULTIPART])
async def test_a_body_is_read_no_further_than_there_is_room(content_type: str) -> None:
    body = Body([part(b"x" * 1000)[:1000], b"y", b"z"], content_type, room=1000)
    with pytest.raises(QueueFullError):
        await body.images()
    assert body.unread == [b"z"]


async def test_the_bytes_of_a_body_are_given_back_whatever_became_of_it() -> None:
    for body in (Body([b"x" * 900], room=1000), Body([b"x" * 900, b"y" * 900], room=1000)):
        with suppress(QueueFullError):
            await body.images()
        assert body.metrics.registry.get_sample_value("purigate_waiting_bytes") == 0


@pytest.mark.parametrize("content_type", ["image/png", MULTIPART])
async def test_a_body_that_stops_half_way_times_out(content_type: str) -> None:
    with pytest.raises(BodyTimeoutError):
        await Body([part(b"half")[:-4]], content_type, ends=False).images(settings=Settings(body_timeout_ms=1))


@pytest.mark.parametrize("content_type", ["image/png", MULTIPART])
async def test_a_client_that_leaves_ends_the_reading(content_type: str) -> None:
    with pytest.raises(ClientDisconnect):
        await Body([part(b"half")[:-4]], content_type, ends=False, leaves=True).images()
