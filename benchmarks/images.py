"""Images that were tampered with, as hypothesis draws them."""

import io

import numpy as np
from hypothesis import strategies as st
from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP")
MODES = ("L", "RGB", "RGBA", "P", "CMYK", "I;16")
SIDE = 24


def whole_images() -> list[bytes]:
    """Small images of every format that is served, in every mode that it knows."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    contents = []
    for mode in MODES:
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(pixels)
        for file_format in FORMATS:
            buffer = io.BytesIO()
            try:
                (image if mode == "I;16" else image.convert(mode)).save(buffer, file_format)
            except (OSError, ValueError):  # the format does not know the mode
                continue
            contents.append(buffer.getvalue())
    return contents


WHOLE = whole_images()


@st.composite
def mutated_images(draw: st.DrawFn) -> bytes:
    """A whole image of which bytes were changed, cut out, doubled or added."""
    content = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(0, 6))):
        begin = draw(st.integers(0, len(content)))
        end = min(len(content), begin + draw(st.sampled_from((0, 1, 2, 4, 16, 10_000))))
        match draw(st.sampled_from(("change", "cut", "double"))):
            case "change":
                content[begin:end] = draw(st.binary(max_size=max(1, end - begin)))
            case "cut":
                del content[begin:end]
            case "double":
                content[begin:begin] = content[begin:end]
    return bytes(content)
