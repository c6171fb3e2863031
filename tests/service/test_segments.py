"""Small files that would keep a decoder busy are refused; whatever real encoders write is not."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.preprocessing import Preprocessing
from service.errors import UndecodableImageError
from service.images import ImageDecoder
from service.segments import MOST_PARTS, MOST_SCANS, jpeg_segments, png_chunks, require_few_parts

SIDE = 64
END = b"\xff\xd9"
SCAN = b"\xff\xda"


def encoded(file_format: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()


def decode(content: bytes) -> None:
    ImageDecoder(Preprocessing(resize=SIDE, height=SIDE, width=SIDE), 10**6).decode(content)


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are so many."""
    content = encoded("JPEG", progressive=True)
    last = content[content.rindex(SCAN) : -len(END)]
    more = count - sum(marker == SCAN[1] for marker in jpeg_segments(content))
    return content[: -len(END)] + more * last + END


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunks(more: int) -> bytes:
    content = encoded("PNG")
    behind_header = 8 + 25
    return content[:behind_header] + more * chunk(b"abCd") + content[behind_header:]


def with_profiles(count: int, kind: bytes = b"iCCP") -> bytes:
    profile = b"x\0\0" + zlib.compress(bytes(1000))
    content = encoded("PNG")
    behind_header = 8 + 25
    return content[:behind_header] + count * chunk(kind, profile) + content[behind_header:]


def with_comments(count: int) -> bytes:
    content = encoded("JPEG")
    return content[:2] + count * b"\xff\xfe\x00\x02" + content[2:]


def behind_start(more: bytes) -> bytes:
    content = encoded("JPEG")
    return content[:2] + more + content[2:]


def with_hidden_scans(count: int) -> bytes:
    """Scans within what a reserved marker seems to skip, as libjpeg looks behind it for where pixels go on."""
    content = encoded("JPEG", progressive=True, restart_marker_blocks=1)
    begin = content.rindex(SCAN)
    head = content[begin : begin + 2 + int.from_bytes(content[begin + 2 : begin + 4], "big")]
    return content[:begin] + head + b"\xff\x02\xff\xff" + count * head + END


@pytest.mark.parametrize(
    "content",
    [
        with_scans(MOST_SCANS),
        with_chunks(MOST_PARTS["PNG"] - 100),
        with_comments(MOST_PARTS["JPEG"] - 100),
        encoded("WEBP"),
        encoded("PNG") + bytes(200_000),
        encoded("JPEG") + b"\xff" * 200_000,
        with_hidden_scans(MOST_SCANS // 4),
    ],
    ids=["scans", "chunks", "comments", "webp", "png and zeros", "jpeg and filling", "hidden scans"],
)
def test_a_file_of_many_parts_is_decoded(content: bytes) -> None:
    decode(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (with_scans(MOST_SCANS + 1), "more than 32 scans"),
        (with_scans(100), "more than 32 scans"),
        (with_hidden_scans(300), "more than 32 scans"),
        (with_chunks(MOST_PARTS["PNG"]), "more than 10000 parts"),
        (with_profiles(65), "more than 64 compressed"),
        (with_profiles(65, b"zTXt"), "more than 64 compressed"),
        (with_profiles(65, b"iTXt"), "more than 64 compressed"),
        (behind_start(b"\xff\xc0\0\x0b\x08\0\x40\0\x40\1\1\x11\0"), "more than 1 frames"),
        (with_comments(MOST_PARTS["JPEG"]), "more than 500 parts"),
        (behind_start(b"\xff\xd9" + b"\xff\xfe\0\2" * 1000), "more than 500 parts"),
        (behind_start(b"\xff\xd0" * 1000), "more than 500 parts"),
        (behind_start(b"\xff\xc8" + b"\xff\xfe\0\2" * 1000), "more than 500 parts"),
        (behind_start(b"\xff" * 1_000_000), "more than 500 parts"),
        (behind_start(b"\xff" + bytes(1_000_000)), "more than 500 parts"),
    ],
    ids=[
        "scans",
        "many",
        "hidden",
        "chunks",
        "iCCP",
        "zTXt",
        "iTXt",
        "frames",
        "comments",
        "behind an end",
        "restarts",
        "no length",
        "filling",
        "zeros",
    ],
)
def test_a_file_of_too_many_is_refused_and_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(UndecodableImageError, match=reason):
        decode(content)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_a_file_may_come_in_any_kind_of_bytes(file_format: str) -> None:
    decode(bytearray(encoded(file_format)))  # type: ignore[arg-type]


def test_scans_of_a_picture_within_the_metadata_do_not_count() -> None:
    thumbnail = SCAN * 1000
    content = encoded("JPEG")
    decode(content[:2] + b"\xff\xe2" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail + content[2:])


def test_what_follows_the_picture_does_not_count() -> None:
    decode(encoded("JPEG") + SCAN * 1000)


@pytest.mark.parametrize("end", [b"\0", b"", b"\xd0"])
def test_a_megabyte_of_filling_among_the_pixels_is_looked_through_once(end: bytes) -> None:
    content = encoded("JPEG")
    begin = content.rindex(SCAN) + 20
    require_few_parts("JPEG", content[:begin] + b"\xff" * 1_000_000 + end + content[begin:])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_the_pixels_of_a_jpeg_are_no_parts_of_it(options: dict[str, Any]) -> None:
    assert len(list(jpeg_segments(encoded("JPEG", **options)))) < 50


def test_every_chunk_of_a_png_is_one_part() -> None:
    assert len(list(png_chunks(with_chunks(7)))) == 7 + len(list(png_chunks(encoded("PNG")))) == 7 + 3


@given(content=st.binary(max_size=300) | st.lists(st.sampled_from([b"\xff", SCAN, b"\0", END])).map(b"".join))
def test_any_bytes_have_some_number_of_parts(content: bytes) -> None:
    for file_format, magic in (("JPEG", b"\xff\xd8"), ("PNG", b"\x89PNG\r\n\x1a\n"), ("WEBP", b"RIFF")):
        try:
            require_few_parts(file_format, magic + content)
        except UndecodableImageError as error:
            assert "more than" in str(error)  # noqa: PT017 - either is right
