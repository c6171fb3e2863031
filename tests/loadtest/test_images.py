"""The images that load a gateway are images, and are what they say they are."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from loadtest.images import FORMATS, File, album, encode, near_copy, photograph, popularity

SIDES = st.integers(1, 96)
SEEDS = st.integers(0, 2**32 - 1)


def opened(file: File) -> Image.Image:
    image = Image.open(io.BytesIO(file.content))
    image.load()
    return image


@settings(deadline=None)
@given(SEEDS, SIDES, SIDES, st.sampled_from(sorted(FORMATS)))
def test_a_photograph_of_any_size_is_a_file_of_its_format_and_size(
    seed: int, width: int, height: int, format_name: str
) -> None:
    file = encode(photograph(np.random.default_rng(seed), width, height), format_name)
    image = opened(file)
    assert (image.format, image.size, image.mode) == (format_name, (file.width, file.height), "RGB")
    assert (file.width, file.height) == (width, height)
    assert file.media_type == Image.MIME[format_name]


@settings(deadline=None)
@given(SEEDS, st.integers(0, 16))
def test_a_near_copy_is_near_and_survives_its_file(seed: int, levels: int) -> None:
    generator = np.random.default_rng(seed)
    image = photograph(generator, 24, 16)
    copy = np.asarray(opened(encode(near_copy(generator, image, levels), "PNG")))
    assert np.abs(copy.astype(int) - image.astype(int)).max() <= levels


def test_near_copies_differ_from_one_another() -> None:
    generator = np.random.default_rng(0)
    image = photograph(generator, 32, 32)
    copies = {near_copy(generator, image, 8).tobytes() for _ in range(400)}
    assert len(copies) == 400


def test_coarse_detail_is_stronger_than_fine_as_in_photographs() -> None:
    image = photograph(np.random.default_rng(0), 256, 256).mean(axis=2)
    power = np.abs(np.fft.rfft2(image - image.mean())) ** 2
    assert power[:8, :8].mean() > 100 * power[64:128, 64:128].mean()


def test_an_album_has_every_format_and_mixed_sizes_and_is_the_same_for_the_same_seed() -> None:
    drawn = album(0, 32)
    assert {file.media_type for file in drawn} == set(FORMATS.values())
    assert len({(file.width, file.height) for file in drawn}) > 4
    assert drawn == album(0, 32)


def test_the_first_image_is_the_most_popular_and_the_second_half_as_popular() -> None:
    shares = popularity(32)
    assert shares.sum() == pytest.approx(1)
    assert shares[0] / shares[1] == pytest.approx(2)
    assert shares[0] / shares[31] == pytest.approx(32)
