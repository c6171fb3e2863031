"""How any photograph becomes the classifier's input; the trainer and the service do the same."""

from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator

Pixels = NDArray[np.uint8]
"""`(height, width, 3)` uint8, RGB."""

DRAFT_OVERSAMPLING = 2
SCALABLE_MODES = frozenset({"L", "RGB", "CMYK"})
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


class Preprocessing(BaseModel):
    """The shape of the classifier's input and the way to it; stored with the classifier.

    Images are turned upright as EXIF tells, transparent ones are laid on white, 16-bit ones lose their lower byte.
    Color profiles are not applied.

    Attributes:
        resize: the shorter side is scaled to this many pixels; an image that already has them is left alone.
        height: of the crop at the center, in pixels.
        width: of the crop at the center, in pixels.
        interpolation: the filter of the scaling.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resize: PositiveInt
    height: PositiveInt
    width: PositiveInt
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if max(self.height, self.width) > self.resize:
            raise ValueError(f"a crop of {self.width}x{self.height} does not fit an image resized to {self.resize}")
        return self

    def apply(self, image: Image.Image) -> Pixels:
        """The input that an opened image of any size and mode becomes; a JPEG is decoded no larger than it needs."""
        scale = self.resize / min(image.size)
        width, height = (max(1, round(DRAFT_OVERSAMPLING * scale * side)) for side in image.size)
        image.draft(None, (width, height))  # only JPEG has one; other formats ignore it
        image.load()
        turn = orientation(image)
        size = (self.width, self.height)
        size = size[::-1] if turn in SIDEWAYS else size
        # Where the mode allows it the small image is converted, not the large one.
        cut = rgb(self._cut(image, size)) if scalable(image) else self._cut(rgb(image), size)
        return np.asarray(cut if turn is None else cut.transpose(turn))

    def _cut(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Scales and crops in one step, so that a very long image never becomes a very large one."""
        scale = min(image.size) / self.resize
        left, top = ((have - want * scale) / 2 for have, want in zip(image.size, size, strict=True))
        if scale == 1 and image.size == size:
            return image
        if scale == 1:
            return image.crop((int(left), int(top), int(left) + size[0], int(top) + size[1]))
        box = (
            max(0.0, left),
            max(0.0, top),
            min(float(image.width), left + size[0] * scale),
            min(float(image.height), top + size[1] * scale),
        )
        return image.resize(size, INTERPOLATIONS[self.interpolation], box=box)


def orientation(image: Image.Image) -> Image.Transpose | None:
    """What turns a loaded image upright; nothing if its EXIF data is missing or damaged."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - the pixels are whole, whatever is wrong beside them
        return None


def scalable(image: Image.Image) -> bool:
    """Whether scaling and converting to RGB may change places; not where a palette or transparency is in play."""
    return image.mode in SCALABLE_MODES and not image.has_transparency_data


def rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB: 16-bit gray by its upper byte, transparent pixels on white."""
    if image.mode in SIXTEEN_BIT_MODES:
        pixels = np.asarray(image)
        gray = np.clip(pixels, 0, SIXTEEN_BIT_MAX) >> 8
        if "transparency" in image.info:
            gray = np.where(pixels == image.info["transparency"], 255, gray)
        return Image.fromarray(gray.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        canvas = Image.new("RGB", layer.size, "white")
        canvas.paste(layer, mask=layer)
        return canvas
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it
