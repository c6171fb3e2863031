"""What is sent: images as files, the same every time."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES = 64
SEED = 0
MEDIA_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}

Body = tuple[bytes, str]
"""A file and its media type."""


def noise() -> list[Body]:
    """PNG images of 32 x 32 pixels of noise, which no file format can make smaller."""
    generator = np.random.default_rng(SEED)
    return [_png(Image.fromarray(pixels)) for pixels in generator.integers(0, 256, (IMAGES, 32, 32, 3), np.uint8)]


def blots(height: int, width: int) -> list[Body]:
    """PNG images of a few large colors that run into one another: as smooth as photographs, of many classes."""
    generator = np.random.default_rng(SEED)
    colors = generator.integers(0, 256, (IMAGES, 5, 5, 3), np.uint8)
    return [_png(Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC)) for few in colors]


def read_bodies(folder: Path) -> list[Body]:
    """The images of a folder and of those in it, by their suffix.

    Raises:
        ValueError: there is none.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in MEDIA_TYPES)
    if not files:
        raise ValueError(f"{folder} has no image that ends in {', '.join(MEDIA_TYPES)}")
    return [(path.read_bytes(), MEDIA_TYPES[path.suffix.lower()]) for path in files]


def _png(image: Image.Image) -> Body:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue(), "image/png"
