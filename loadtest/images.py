"""Images that load a gateway as photographs do, drawn from random numbers."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
FORMAT_SHARES = (0.6, 0.2, 0.2)
SIZES = ((32, 32), (160, 120), (224, 224), (320, 240), (640, 480), (1024, 768))
COARSEST = 2
OCTAVES = 7
LEVELS = 255
NOISE_LEVELS = 6
QUALITY = 85


@dataclass(frozen=True)
class File:
    """An image as a client sends it.

    Attributes:
        content: the file.
        media_type: of the content, such as `image/jpeg`.
        width, height: in pixels.
    """

    content: bytes
    media_type: str
    width: int
    height: int


def photograph(generator: np.random.Generator, width: int, height: int) -> Pixels:
    """Draws an image whose fine detail is faint and whose coarse detail is strong, as in photographs.

    Returns:
        `(height, width, 3)` uint8.
    """
    drawn = np.zeros((height, width, 3), np.float32)
    for octave in range(OCTAVES):
        cells = min(COARSEST << octave, width, height)
        coarse = generator.standard_normal((cells, cells, 3), np.float32)
        drawn += _scaled(coarse, width, height) / 2**octave
    drawn -= drawn.min()
    drawn *= LEVELS / drawn.max()
    drawn += NOISE_LEVELS * generator.standard_normal(drawn.shape, np.float32)
    return _levels(drawn)


def near_copy(generator: np.random.Generator, image: Pixels, levels: int) -> Pixels:
    """Moves every value of `image` by at most `levels`, at random: what a query-based attack asks about next."""
    moved = image.astype(np.int16) + generator.integers(-levels, levels, image.shape, np.int16, endpoint=True)
    return _levels(moved)


def encode(image: Pixels, format_name: str) -> File:
    """Writes `(height, width, 3)` uint8 in one of `FORMATS`; PNG without loss."""
    buffer = io.BytesIO()
    options = {} if format_name == "PNG" else {"quality": QUALITY}
    Image.fromarray(image).save(buffer, format_name, **options)
    height, width = image.shape[:2]
    return File(buffer.getvalue(), FORMATS[format_name], width, height)


def album(seed: int, count: int) -> list[File]:
    """Draws `count` photographs of mixed sizes, upright and across, in mixed formats; the same for the same seed."""
    generator = np.random.default_rng(seed)
    files = []
    for _ in range(count):
        width, height = (int(side) for side in generator.permutation(SIZES[generator.integers(len(SIZES))]))
        format_name = str(generator.choice(list(FORMATS), p=FORMAT_SHARES))
        files.append(encode(photograph(generator, width, height), format_name))
    return files


def popularity(count: int) -> NDArray[np.float64]:
    """How likely each of `count` images is to be asked about: the n-th 1/n as often as the first (Zipf)."""
    weights = 1 / np.arange(1, count + 1)
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def _levels(values: NDArray[Any]) -> Pixels:
    clipped: Pixels = np.clip(values, 0, LEVELS).astype(np.uint8)
    return clipped


def _scaled(coarse: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    channels = [
        np.asarray(Image.fromarray(coarse[..., index]).resize((width, height), Image.Resampling.BICUBIC))
        for index in range(coarse.shape[-1])
    ]
    return np.stack(channels, axis=-1)
