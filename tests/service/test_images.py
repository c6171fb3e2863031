"""Untrusted bytes become pixels, or one of three errors."""

import io
import struct
import zlib
from contextlib import suppress
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from models.preprocessing import Pixels, Preprocessing
from service.errors import GatewayError, TooManyPixelsError, UndecodableImageError, UnsupportedImageTypeError
from service.images import ImageDecoder, served_format, webp_size

MAX_PIXELS = 50_000_000
SIZE = 32
WHITE = 255
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
WEBP_MAGIC = b"RIFF\xff\xff\0\0WEBP"
JPEG_MAGIC = b"\xff\xd8\xff\xe0"


def decode(
    content: bytes,
    resize: int = SIZE,
    height: int = SIZE,
    width: int = SIZE,
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
    max_pixels: int = MAX_PIXELS,
) -> Pixels:
    return ImageDecoder(
        Preprocessing(resize=resize, height=height, width=width, interpolation=interpolation), max_pixels
    ).decode(content)


def encoded(pixels: NDArray[Any] | Image.Image, file_format: str, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def noise(height: int = SIZE, width: int = SIZE, channels: int = 3) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def quadrants(height: int, width: int) -> Pixels:
    """Four flat colors: survives JPEG, and every turn of it looks different."""
    pixels = np.full((height, width, 3), 20, np.uint8)
    pixels[: height // 2, width // 2 :] = 90
    pixels[height // 2 :, : width // 2] = 160
    pixels[height // 2 :, width // 2 :] = 230
    return pixels


def oriented(upright: Pixels, orientation: int, file_format: str, **options: Any) -> bytes:
    """A file whose EXIF orientation has to be applied for it to look like `upright`."""
    stored = {
        1: upright,
        2: np.fliplr(upright),
        3: np.rot90(upright, 2),
        4: np.flipud(upright),
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(np.ascontiguousarray(stored), file_format, exif=exif, **options)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG file that has no pixels at all."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG_MAGIC + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


def mean_difference(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"lossless": True, "exact": True}}
SERVED: dict[str, dict[str, Any]] = {**LOSSLESS, "JPEG": {"quality": 95, "subsampling": 0}}
WHOLE_FILES = {
    "png": encoded(noise(), "PNG"),
    "palette png": encoded(Image.fromarray(noise()).convert("P"), "PNG"),
    "jpeg": encoded(noise(), "JPEG"),
    "progressive jpeg": encoded(noise(), "JPEG", progressive=True),
    "jpeg larger than its target": encoded(Image.fromarray(noise()).resize((300, 300)), "JPEG"),
    "webp": encoded(noise(), "WEBP"),
    "lossless webp": encoded(noise(), "WEBP", lossless=True),
}


@pytest.mark.parametrize("file_format", LOSSLESS)
def test_a_lossless_image_of_the_target_size_comes_back_to_the_last_bit(file_format: str) -> None:
    pixels = noise()
    np.testing.assert_array_equal(decode(encoded(pixels, file_format, **LOSSLESS[file_format])), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_every_mode_becomes_three_channels_of_bytes(mode: str, file_format: str) -> None:
    pixels = decode(encoded(Image.fromarray(noise(40, 50)).convert(mode), file_format))
    assert (pixels.shape, str(pixels.dtype)) == ((SIZE, SIZE, 3), "uint8")


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_of_every_mode_keeps_its_colors(mode: str) -> None:
    image = Image.fromarray(quadrants(64, 64))
    assert mean_difference(decode(encoded(image.convert(mode), "JPEG", quality=95)), quadrants(SIZE, SIZE)) < 6


def test_grey_fills_all_three_channels() -> None:
    grey = noise(channels=1)[:, :, 0]
    np.testing.assert_array_equal(decode(encoded(grey, "PNG")), np.stack([grey] * 3, axis=2))


def test_palette_colors_are_looked_up() -> None:
    image = Image.fromarray(quadrants(SIZE, SIZE)).quantize(4)
    np.testing.assert_array_equal(decode(encoded(image, "PNG")), np.asarray(image.convert("RGB")))


def test_sixteen_bit_grey_keeps_its_upper_byte() -> None:
    grey = np.random.default_rng(0).integers(0, 2**16, (SIZE, SIZE), np.uint16)
    upper = (grey >> 8).astype(np.uint8)
    np.testing.assert_array_equal(decode(encoded(grey, "PNG")), np.stack([upper] * 3, axis=2))


@pytest.mark.parametrize("file_format", LOSSLESS)
def test_a_pixel_that_is_wholly_transparent_becomes_white(file_format: str) -> None:
    pixels = noise(channels=4)
    pixels[:, :, 3] = np.where(np.arange(SIZE) < SIZE // 2, 0, 255)
    decoded = decode(encoded(pixels, file_format, **LOSSLESS[file_format]))
    assert (decoded[:, : SIZE // 2] == WHITE).all()
    np.testing.assert_array_equal(decoded[:, SIZE // 2 :], pixels[:, SIZE // 2 :, :3])


def test_a_pixel_that_is_half_transparent_is_mixed_with_white() -> None:
    half = np.full((SIZE, SIZE, 4), (200, 100, 0, 51), np.uint8)
    expected = np.array([200, 100, 0]) * 0.2 + WHITE * 0.8
    np.testing.assert_allclose(decode(encoded(half, "PNG"))[0, 0], expected, atol=1)


def test_transparent_grey_is_laid_on_white() -> None:
    clear = np.zeros((SIZE, SIZE, 2), np.uint8)
    assert (decode(encoded(Image.fromarray(clear, "LA"), "PNG")) == WHITE).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_the_color_that_a_png_calls_transparent_becomes_white(mode: str) -> None:
    image = Image.new("RGB", (SIZE, SIZE), (3, 3, 3)).convert(mode, palette=Image.Palette.ADAPTIVE)
    content = encoded(image, "PNG", transparency=image.getpixel((0, 0)))
    assert (decode(content) == WHITE).all()


def test_a_palette_with_an_alpha_for_each_color_is_laid_on_white() -> None:
    image = Image.new("P", (SIZE, SIZE), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.paste(0, (0, 0, SIZE // 2, SIZE))
    decoded = decode(encoded(image, "PNG", transparency=bytes([0, 255])))
    assert (decoded[0, 0].tolist(), decoded[0, -1].tolist()) == ([WHITE] * 3, [40, 50, 60])


def test_the_grey_that_a_sixteen_bit_png_calls_transparent_becomes_white() -> None:
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 16, 0, 0, 0, 0)
    rows = (b"\0" + b"\x12\x34" * SIZE) * SIZE
    content = PNG_MAGIC + chunk(b"IHDR", header) + chunk(b"tRNS", b"\x12\x34") + chunk(b"IDAT", zlib.compress(rows))
    assert (decode(content + chunk(b"IEND", b"")) == WHITE).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", SERVED)
def test_every_exif_orientation_is_turned_upright(file_format: str, orientation: int) -> None:
    upright = quadrants(SIZE, SIZE)
    turned = decode(oriented(upright, orientation, file_format, **SERVED[file_format]))
    assert mean_difference(turned, upright) < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_crop_is_that_of_the_upright_image_however_it_is_stored(orientation: int) -> None:
    upright = noise(96, 64)
    as_it_is = decode(encoded(upright, "PNG"), height=20)
    turned = decode(oriented(upright, orientation, "PNG"), height=20)
    assert turned.shape == (20, SIZE, 3)
    np.testing.assert_allclose(turned.astype(int), as_it_is.astype(int), atol=1)


@pytest.mark.parametrize("file_format", SERVED)
def test_a_large_image_is_turned_upright_too(file_format: str) -> None:
    content = oriented(quadrants(600, 400), 6, file_format, **SERVED[file_format])
    assert mean_difference(decode(content), decode(encoded(quadrants(600, 400), "PNG"))) < 2


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(encoded(noise(), "PNG", exif=exif)), noise())


@pytest.mark.parametrize("file_format", SERVED)
def test_damaged_exif_does_not_spoil_whole_pixels(file_format: str) -> None:
    plain = encoded(noise(), file_format, **SERVED[file_format])
    damaged = encoded(noise(), file_format, exif=b"Exif\0\0no TIFF at all", **SERVED[file_format])
    np.testing.assert_array_equal(decode(damaged), decode(plain))


def test_a_jpeg_decoded_at_reduced_scale_is_close_to_the_full_decode() -> None:
    coarse = Image.fromarray(noise(12, 16)).resize((1600, 1200), Image.Resampling.BICUBIC)
    content = encoded(coarse, "JPEG", quality=95)
    full = Image.open(io.BytesIO(content)).convert("RGB")
    expected = full.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=(200, 0, 1400, 1200))
    assert mean_difference(decode(content), np.asarray(expected)) < 2


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_scaling_uses_the_filter_of_the_bundle(interpolation: Literal["bilinear", "bicubic"]) -> None:
    image = Image.fromarray(noise(100, 100))
    expected = image.resize((SIZE, SIZE), Image.Resampling[interpolation.upper()])
    np.testing.assert_array_equal(decode(encoded(image, "PNG"), interpolation=interpolation), np.asarray(expected))


def test_the_center_of_a_wide_image_is_what_counts() -> None:
    wide = np.zeros((SIZE, 3 * SIZE, 3), np.uint8)
    wide[:, SIZE : 2 * SIZE] = noise()
    np.testing.assert_array_equal(decode(encoded(wide, "PNG")), noise())


@pytest.mark.parametrize(("height", "width"), [(24, 32), (32, 24), (1, 32), (16, 16)])
def test_crops_need_not_be_square(height: int, width: int) -> None:
    assert decode(encoded(noise(70, 90), "PNG"), height=height, width=width).shape == (height, width, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (1, 20_000), (20_000, 1), (3, 2000), (31, 33)], ids=str)
@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_images_of_any_proportions_are_decoded(size: tuple[int, int], file_format: str) -> None:
    assert decode(encoded(Image.new("RGB", size, "teal"), file_format)).shape == (SIZE, SIZE, 3)


def test_a_very_long_image_never_becomes_a_very_large_one() -> None:
    """Scaled before it is cut, this one would take 4 GB."""
    assert decode(encoded(Image.new("RGB", (1, 1_000_000), "teal"), "PNG")).shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("side", [29, 58, 450])
def test_an_image_that_is_scaled_to_224_pixels_is_decoded_whatever_its_size(side: int) -> None:
    content = encoded(Image.new("RGB", (side, side + 1)), "PNG")
    assert decode(content, resize=224, height=224, width=224).shape == (224, 224, 3)


@given(width=st.integers(1, 120), height=st.integers(1, 120), file_format=st.sampled_from(["PNG", "JPEG", "WEBP"]))
@settings(deadline=None, max_examples=60)
def test_a_whole_image_of_any_size_is_decoded(width: int, height: int, file_format: str) -> None:
    content = encoded(Image.new("RGB", (width, height), "teal"), file_format)
    assert decode(content, height=20).shape == (20, SIZE, 3)


@given(name=st.sampled_from(sorted(WHOLE_FILES)), share=st.floats(0, 1, exclude_max=True))
@settings(deadline=None, max_examples=150)
def test_a_truncated_file_is_refused_unless_all_its_pixels_are_there(name: str, share: float) -> None:
    whole = WHOLE_FILES[name]
    try:
        pixels = decode(whole[: int(share * len(whole))])
    except UndecodableImageError:
        return
    np.testing.assert_array_equal(pixels, decode(whole))


@pytest.mark.parametrize("name", WHOLE_FILES)
def test_half_a_file_is_refused(name: str) -> None:
    whole = WHOLE_FILES[name]
    with pytest.raises(UndecodableImageError):
        decode(whole[: len(whole) // 2])


@given(magic=st.sampled_from([PNG_MAGIC, JPEG_MAGIC, WEBP_MAGIC]), rest=st.binary(max_size=300))
@settings(deadline=None, max_examples=150)
def test_garbage_behind_a_valid_signature_is_undecodable(magic: bytes, rest: bytes) -> None:
    with pytest.raises(UndecodableImageError):
        decode(magic + rest)


@given(
    name=st.sampled_from(sorted(WHOLE_FILES)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
@settings(deadline=None, max_examples=300)
def test_a_damaged_file_gives_pixels_or_an_error_that_its_sender_may_know(
    name: str, changes: list[tuple[float, int]]
) -> None:
    content = bytearray(WHOLE_FILES[name])
    for share, value in changes:
        content[int(share * len(content))] = value
    try:
        pixels = decode(bytes(content))
    except GatewayError:
        return
    assert (pixels.shape, str(pixels.dtype)) == ((SIZE, SIZE, 3), "uint8")


@pytest.mark.parametrize("file_format", ["GIF", "BMP", "TIFF", "ICO", "PDF"])
def test_other_formats_are_not_served(file_format: str) -> None:
    with pytest.raises(UnsupportedImageTypeError):
        decode(encoded(noise(), file_format))


@pytest.mark.parametrize(
    "content",
    [
        b"\0\0\0\x1cftypavif\0\0\0\0",
        b"\0\0\0\x18ftypheic\0\0\0\0",
        b"\0\0\0\x0cJXL \r\n\x87\n",
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b'\n  <?xml version="1.0"?><svg/>',
    ],
)
def test_formats_that_pillow_may_not_write_are_not_served(content: bytes) -> None:
    with pytest.raises(UnsupportedImageTypeError):
        decode(content)


@pytest.mark.parametrize("content", [b"hello", b"\0", b"RIFF\0\0\0\0WAVE", b"\x89PNG", b'{"image": 1}'])
def test_what_is_no_image_at_all_is_undecodable(content: bytes) -> None:
    with pytest.raises(UndecodableImageError):
        decode(content)


@given(content=st.binary(max_size=100))
@settings(deadline=None)
def test_any_bytes_have_a_served_format_or_an_error(content: bytes) -> None:
    with suppress(GatewayError):
        assert served_format(content) in {"JPEG", "PNG", "WEBP"}


def test_the_header_of_a_huge_png_is_enough_to_refuse_it() -> None:
    with pytest.raises(TooManyPixelsError):
        decode(png_header(10_000, 10_000))


def test_the_header_of_a_png_beyond_all_measure_is_enough_to_refuse_it() -> None:
    with pytest.raises(TooManyPixelsError):
        decode(png_header(2**31 - 1, 2**31 - 1))


def test_the_header_of_a_huge_jpeg_is_enough_to_refuse_it() -> None:
    content = bytearray(WHOLE_FILES["jpeg"])
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(TooManyPixelsError):
        decode(bytes(content))


def test_a_webp_of_few_bytes_and_many_pixels_is_refused() -> None:
    content = bytearray(encoded(Image.new("RGB", (16, 16)), "WEBP", lossless=True))
    sides = content.index(b"VP8L") + 9
    width, height = 16_000, 16_000
    content[sides : sides + 4] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    with pytest.raises(TooManyPixelsError):
        decode(bytes(content))


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}, {"quality": 80, "exif": b"Exif\0\0"}])
def test_the_size_of_a_webp_is_read_from_its_header(options: dict[str, Any]) -> None:
    assert webp_size(encoded(Image.new("RGB", (301, 77)), "WEBP", **options)) == (301, 77)


def test_a_webp_beyond_the_limit_is_refused_before_the_decoder_takes_memory_for_it() -> None:
    content = encoded(Image.new("RGB", (301, 77)), "WEBP", lossless=True)
    damaged_after_the_header = content[:30]
    with pytest.raises(TooManyPixelsError, match="301 x 77"):
        decode(damaged_after_the_header, max_pixels=301 * 77 - 1)


def test_exactly_the_most_pixels_are_accepted() -> None:
    assert decode(encoded(noise(10, 10), "PNG"), max_pixels=100).shape == (SIZE, SIZE, 3)


def test_one_pixel_above_the_most_is_refused() -> None:
    with pytest.raises(TooManyPixelsError):
        decode(encoded(noise(1, 101), "PNG"), max_pixels=100)


@pytest.mark.parametrize("side", [10_000, 14_000])
def test_max_pixels_may_be_set_above_the_limits_that_pillow_has(side: int) -> None:
    with pytest.raises(UndecodableImageError):
        decode(png_header(side, side), max_pixels=200_000_000)


@pytest.mark.parametrize("file_format", LOSSLESS)
def test_the_first_frame_of_an_animation_counts(file_format: str) -> None:
    first, second = Image.fromarray(noise()), Image.new("RGB", (SIZE, SIZE), "teal")
    content = encoded(first, file_format, save_all=True, append_images=[second], **LOSSLESS[file_format])
    np.testing.assert_array_equal(decode(content), noise())


def test_a_photograph_with_several_pictures_in_it_shows_the_first() -> None:
    first, second = Image.fromarray(quadrants(64, 64)), Image.new("RGB", (64, 64), "teal")
    content = encoded(first, "MPO", save_all=True, append_images=[second])
    assert mean_difference(decode(content), quadrants(SIZE, SIZE)) < 6


def test_the_message_about_a_damaged_image_names_its_format_and_nothing_of_the_inside() -> None:
    with pytest.raises(UndecodableImageError, match=r"^the PNG image is damaged or incomplete$"):
        decode(PNG_MAGIC + b"garbage")
