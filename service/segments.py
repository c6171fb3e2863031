"""The parts that an image file is made of, counted before a decoder goes through them.

Some parts take a decoder far longer than their bytes would suggest: a scan of a JPEG costs a walk over all pixels for
twelve bytes, and a part that says nothing costs Pillow some microseconds of Python. A file of a few kilobytes could so
hold a thread for seconds, one of 16 MiB for half an hour, and nothing can stop a decoder.
"""

import re
from collections.abc import Callable, Iterator
from itertools import islice

from service.errors import UndecodableImageError

MOST_SCANS = 32
"""Of a JPEG; encoders write a dozen at most."""
MOST_PARTS = {"JPEG": 500, "PNG": 10_000}
"""A JPEG has at most 255 of a color profile and some dozens of metadata; Pillow copies all that came before with each
further one of some kinds. 16 MiB of PNG in the usual chunks of 8 KiB have 2,000."""
JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
"""What ends the pixels of a scan; not a byte 255 among them, which a 0 follows, nor a place to start again."""
JPEG_SIGNATURE, PNG_SIGNATURE = 2, 8
FILL, START_OF_SCAN, END_OF_IMAGE = 0xFF, 0xDA, 0xD9
WITHOUT_LENGTH = frozenset({0x00, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)})
"""Markers before the pixels for which Pillow reads no length."""
WITH_LENGTH = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE}) - WITHOUT_LENGTH
"""Markers behind the pixels of a scan for which libjpeg does; it looks for the next marker right behind any other."""
FRAMES = frozenset({*range(0xC0, 0xD0), 0xDE}) - {0xC4, 0xC8, 0xCC}
"""Markers of a frame header, of which a picture has one, and Pillow keeps every entry."""
PNG_FRAME = 12
"""Bytes of a chunk around its content: length, type and checksum."""
PNG_END = b"IEND"
COMPRESSED = frozenset({b"iCCP", b"iTXt", b"zTXt"})
"""Chunks of which a kilobyte becomes a megabyte."""
MOST_COMPRESSED = 64


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
    most = MOST_PARTS[file_format]
    found = list(islice(parts(content), most + 1))
    if len(found) > most:
        raise UndecodableImageError(f"the {file_format} image is made of more than {most} parts")
    for kinds, number, name in BOUNDS[file_format]:
        if sum(kind in kinds for kind in found) > number:
            raise UndecodableImageError(f"the {file_format} image has more than {number} {name}")


Parts = Iterator[int] | Iterator[bytes]


def jpeg_segments(content: bytes) -> Iterator[int]:
    """The marker of each segment of the first picture (ITU-T T.81, annex B), as those who decode it go through them.

    Before the pixels that is Pillow, of which each byte too many is a step of its own, and then libjpeg.
    """
    place = JPEG_SIGNATURE
    while place + 1 < len(content):
        is_marker, marker = content[place] == FILL, content[place + 1]
        if is_marker and marker == START_OF_SCAN:
            yield from _scans(content, place)
            return
        yield marker if is_marker else 0
        if not is_marker or marker == FILL:
            place += 1
        elif marker in WITHOUT_LENGTH:
            place += 2
        else:
            place += 2 + _length(content, place + 2)


def _scans(content: bytes, place: int) -> Iterator[int]:
    while found := JPEG_MARKER.search(content, place):
        marker, place = found[1][0], found.end()
        if marker == END_OF_IMAGE:
            return
        yield marker
        if marker in WITH_LENGTH:
            place += _length(content, place)


def _length(content: bytes, place: int) -> int:
    return int.from_bytes(content[place : place + 2], "big")


def png_chunks(content: bytes) -> Iterator[bytes]:
    """The type of each chunk, to the last one (PNG, third edition, section 5.3)."""
    place = PNG_SIGNATURE
    while place < len(content):
        kind = bytes(content[place + 4 : place + 8])  # a file may come in a bytearray
        yield kind
        if kind == PNG_END:
            return
        place += PNG_FRAME + int.from_bytes(content[place : place + 4], "big")


PARTS: dict[str, Callable[[bytes], Parts]] = {"JPEG": jpeg_segments, "PNG": png_chunks}
BOUNDS: dict[str, tuple[tuple[frozenset[int | bytes], int, str], ...]] = {
    "JPEG": ((frozenset({START_OF_SCAN}), MOST_SCANS, "scans"), (frozenset(FRAMES), 1, "frames")),
    "PNG": ((frozenset(COMPRESSED), MOST_COMPRESSED, "compressed texts and profiles"),),
}
"""Of some kinds of parts there may be fewer: how many, and what they are called."""
