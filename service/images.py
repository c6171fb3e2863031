"""Untrusted bytes to pixels: what is refused, and how the rest becomes the classifier's input."""

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from service.errors import TooManyPixelsError, UndecodableImageError, UnsupportedImageTypeError

Pixels = NDArray[np.uint8]
"""`(height, width, 3)` uint8, RGB."""

READERS = {"JPEG": JpegImageFile, "PNG": PngImageFile, "WEBP": WebPImageFile}
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
DRAFT_OVERSAMPLING = 2
SIXTEEN_BIT_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
SIXTEEN_BIT_MAX = 2**16 - 1
ORIENTATION_TAG = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = frozenset({TURNS[5], TURNS[6], TURNS[7], TURNS[8]})
INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class InputShape:
    """What the classifier takes: the shorter side scaled to `resize`, then `height` x `width` cut from the center."""

    resize: int
    height: int
    width: int
    interpolation: Literal["bilinear", "bicubic"]


class ImageDecoder:
    """Decodes JPEG, PNG and WebP of any mode to what the classifier takes.

    Transparent images are laid on white, 16-bit ones lose their lower byte, of animations the first frame counts, and
    the orientation that EXIF tells is honored. Color profiles are not applied.

    Args:
        shape: of the output.
        max_pixels: of an image, checked before any pixel is decoded.
    """

    def __init__(self, shape: InputShape, max_pixels: int) -> None:
        self.shape = shape
        self.max_pixels = max_pixels

    def decode(self, content: bytes) -> Pixels:
        """Decodes one image.

        Raises:
            UnsupportedImageTypeError: the bytes are of a known format that is not served.
            TooManyPixelsError: the header says more pixels than are accepted.
            UndecodableImageError: the bytes are no image, or not a whole one.
        """
        expected = served_format(content)
        if expected == "WEBP":
            self._check_size(*webp_size(content))
        try:
            with READERS[expected](io.BytesIO(content)) as image:
                self._check_size(*image.size)
                return self._pixels(image)
        except (TooManyPixelsError, MemoryError):
            raise
        except Image.DecompressionBombError as error:
            raise TooManyPixelsError(f"the image has more pixels than the {expected} decoder takes") from error
        except Exception as error:  # Pillow's parsers raise almost anything on hostile bytes
            raise UndecodableImageError(f"the {expected} image is damaged or incomplete") from error

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise TooManyPixelsError(f"the image has {width} x {height} pixels; at most {self.max_pixels} are accepted")

    def _pixels(self, image: Image.Image) -> Pixels:
        scale = self.shape.resize / min(image.size)
        width, height = (max(1, round(DRAFT_OVERSAMPLING * scale * side)) for side in image.size)
        image.draft(None, (width, height))  # only JPEG has one; other formats ignore it
        image.load()
        turn = orientation(image)
        size = (self.shape.width, self.shape.height)
        cut = self._cut(rgb(image), size[::-1] if turn in SIDEWAYS else size)
        return np.asarray(cut if turn is None else cut.transpose(turn))

    def _cut(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Scales and crops in one step, so that a very long image never becomes a very large one."""
        scale = min(image.size) / self.shape.resize
        left, top = ((have - want * scale) / 2 for have, want in zip(image.size, size, strict=True))
        if scale == 1:
            return image.crop((int(left), int(top), int(left) + size[0], int(top) + size[1]))
        box = (
            max(0.0, left),
            max(0.0, top),
            min(float(image.width), left + size[0] * scale),
            min(float(image.height), top + size[1] * scale),
        )
        return image.resize(size, INTERPOLATIONS[self.shape.interpolation], box=box)


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


def orientation(image: Image.Image) -> Image.Transpose | None:
    """What turns a loaded image upright; nothing if its EXIF data is missing or damaged."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - the pixels are whole, whatever is wrong beside them
        return None


def rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB: 16-bit grey by its upper byte, transparent pixels on white."""
    if image.mode in SIXTEEN_BIT_MODES:
        pixels = np.asarray(image)
        grey = np.clip(pixels, 0, SIXTEEN_BIT_MAX) >> 8
        if "transparency" in image.info:
            grey = np.where(pixels == image.info["transparency"], 255, grey)
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


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
