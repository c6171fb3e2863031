"""Untrusted bytes to pixels: what is refused, and what is decoded."""

import io
from collections.abc import Callable

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from models.preprocessing import Pixels, Preprocessing
from service.errors import TooManyPixelsError, UndecodableImageError, UnsupportedImageTypeError
from service.segments import require_few_parts

READERS: dict[str, Callable[[io.BytesIO], ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
}
"""Called directly: `Image.open` has a limit of its own on pixels, which could only be changed for the whole process."""
SERVED_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
WEBP_OFFSET = 8
WEBP_SIDE_BITS = 14
WEBP_SIDE = 2**WEBP_SIDE_BITS - 1
ISO_MEDIA_OFFSET = 4
HEAD_BYTES = 64
SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}
OTHER_SIGNATURES = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\1\0": "icon",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"<?xml": "XML",
}


class ImageDecoder:
    """Decodes JPEG, PNG and WebP of any mode to what the classifier takes; of animations the first frame counts.

    Args:
        preprocessing: of the bundle.
        max_pixels: of an image, checked before any pixel is decoded.
    """

    def __init__(self, preprocessing: Preprocessing, max_pixels: int) -> None:
        self.preprocessing = preprocessing
        self.max_pixels = max_pixels

    def decode(self, content: bytes) -> Pixels:
        """Decodes one image.

        Raises:
            UnsupportedImageTypeError: the bytes are of a known format that is not served.
            TooManyPixelsError: the header says more pixels than are accepted.
            UndecodableImageError: the bytes are no image, not a whole one, or one made to take long.
        """
        expected = served_format(content)
        require_few_parts(expected, content)
        if expected == "WEBP":
            self._check_size(*webp_size(content))
        try:
            with READERS[expected](io.BytesIO(content)) as image:
                self._check_size(*image.size)
                return self.preprocessing.apply(image)
        except (TooManyPixelsError, MemoryError):
            raise
        except Image.DecompressionBombError as error:
            raise TooManyPixelsError(f"the image has more pixels than the {expected} decoder takes") from error
        except Exception as error:  # Pillow's parsers raise almost anything on hostile bytes
            raise UndecodableImageError(f"the {expected} image is damaged or incomplete") from error

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise TooManyPixelsError(f"the image has {width} x {height} pixels; at most {self.max_pixels} are accepted")


def webp_size(content: bytes) -> tuple[int, int]:
    """Width and height by the first chunk (RFC 9649, section 2); the decoder takes memory for them on opening."""

    def number(begin: int, end: int) -> int:
        return int.from_bytes(content[begin:end], "little")

    match content[12:16]:
        case b"VP8X":
            return number(24, 27) + 1, number(27, 30) + 1
        case b"VP8L":
            return (number(21, 25) & WEBP_SIDE) + 1, (number(21, 25) >> WEBP_SIDE_BITS & WEBP_SIDE) + 1
        case b"VP8 ":
            return number(26, 28) & WEBP_SIDE, number(28, 30) & WEBP_SIDE
        case _:  # no image; the decoder will say so
            return 0, 0


def served_format(content: bytes) -> str:
    """The format that the bytes begin with, `JPEG`, `PNG` or `WEBP`, whatever their sender calls them.

    Raises:
        UnsupportedImageTypeError: it is another known one.
        UndecodableImageError: it is none that is known.
    """
    for signature, name in SIGNATURES.items():
        if content.startswith(signature):
            return name
    if content.startswith(b"RIFF") and content.startswith(b"WEBP", WEBP_OFFSET):
        return "WEBP"
    served = ", ".join(SERVED_TYPES)
    head = content[:HEAD_BYTES].lstrip()
    for signature, name in OTHER_SIGNATURES.items():
        if head.startswith(signature):
            raise UnsupportedImageTypeError(f"this is {name}; served are {served}")
    if content.startswith(b"ftyp", ISO_MEDIA_OFFSET):
        raise UnsupportedImageTypeError(f"this is AVIF, HEIC or a video; served are {served}")
    raise UndecodableImageError(f"the bytes are no image that is known; served are {served}")
