"""The parts that an image file is made of, counted before a decoder goes through them.

Some parts take a decoder far longer than their bytes would suggest: a scan of a JPEG costs a walk over all pixels for
twelve bytes, and a part of a JPEG or PNG that says nothing costs Pillow some microseconds of Python. A file of a few
kilobytes could so hold a thread for seconds, one of 16 MiB for half an hour, and nothing can stop a decoder.
"""

import re
from collections.abc import Callable, Iterator
from itertools import islice

from service.errors import UndecodableImageError

MOST_SCANS = 32
"""Of a JPEG; encoders write a dozen at most."""
MOST_PARTS = 10_000
"""Of a file; 16 MiB of PNG in the usual chunks of 8 KiB have 2,000."""
JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
"""What begins a part; not a byte 255 of the pixels, which a 0 follows, nor a place to start again among them."""
JPEG_SIGNATURE, PNG_SIGNATURE = 2, 8
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
WITHOUT_LENGTH = frozenset({0x01, 0xD8})
PNG_FRAME = 12
"""Bytes of a chunk around its content: length, type and checksum."""


def require_few_parts(file_format: str, content: bytes) -> None:
    """Lets a file pass that is made of as few parts as those of real images.

    Args:
        file_format: `JPEG`, `PNG` or `WEBP`; the parts of the last cost nothing.
        content: of the file, which begins as its format does.

    Raises:
        UndecodableImageError: it has too many.
    """
    parts = PARTS.get(file_format)
    if parts is None:
        return
    found = list(islice(parts(content), MOST_PARTS + 1))
    if len(found) > MOST_PARTS:
        raise UndecodableImageError(f"the {file_format} image is made of more than {MOST_PARTS} parts")
    if file_format == "JPEG" and found.count(START_OF_SCAN) > MOST_SCANS:
        raise UndecodableImageError(f"the JPEG image has more than {MOST_SCANS} scans")


def jpeg_segments(content: bytes) -> Iterator[int]:
    """The marker of each segment of the first picture (ITU-T T.81, annex B)."""
    place = JPEG_SIGNATURE
    while found := JPEG_MARKER.search(content, place):
        marker, place = found[1][0], found.end()
        if marker == END_OF_IMAGE:
            return
        yield marker
        if marker not in WITHOUT_LENGTH:
            place += int.from_bytes(content[place : place + 2], "big")


def png_chunks(content: bytes) -> Iterator[int]:
    """The length of each chunk (PNG, third edition, section 5.3)."""
    place = PNG_SIGNATURE
    while place < len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        yield length
        place += PNG_FRAME + length


PARTS: dict[str, Callable[[bytes], Iterator[int]]] = {"JPEG": jpeg_segments, "PNG": png_chunks}
