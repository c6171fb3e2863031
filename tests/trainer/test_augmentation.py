"""Flips and crops show real parts of the images, and all of them in time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from trainer.augmentation import crop, draw_corners, draw_flips, flip, reflect


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    return flip(images, draw_flips(len(images), generator))


def random_crop(images: Tensor, size: int, padding: int, generator: torch.Generator) -> Tensor:
    widened = reflect(images, padding)
    return crop(widened, draw_corners(len(images), widened.shape[3] - size, generator), size)


def numbered(count: int, size: int) -> Tensor:
    """`(count, 3, size, size)` uint8 whose pixels all differ within an image."""
    return torch.stack([torch.randperm(3 * size * size).view(3, size, size) for _ in range(count)]).to(torch.uint8)


def test_each_image_is_mirrored_left_to_right_or_left_alone() -> None:
    images = numbered(40, 5)

    for image, flipped in zip(images, random_flip(images, seeded()), strict=True):
        assert torch.equal(flipped, image) or torch.equal(flipped, image.flip(2))


def test_about_half_of_the_images_are_mirrored() -> None:
    images = torch.tensor([0, 1], dtype=torch.uint8).expand(10_000, 1, 1, 2)

    mirrored = int(random_flip(images, seeded())[:, 0, 0, 0].sum())

    assert 4_750 < mirrored < 5_250  # five standard deviations


@settings(deadline=None, max_examples=40)
@given(size=st.integers(2, 8), padding=st.integers(0, 3), cut=st.integers(0, 3), seed=st.integers(0, 2**32 - 1))
def test_a_crop_is_a_window_of_the_reflected_image(size: int, padding: int, cut: int, seed: int) -> None:
    padding, cut = min(padding, size - 1), min(cut, size - 1)
    images = numbered(4, size)
    reflected = functional.pad(images.float(), [padding] * 4, mode="reflect").to(torch.uint8)

    crops = random_crop(images, size - cut, padding, seeded(seed))

    assert crops.dtype == torch.uint8
    for image, window_of_it in zip(reflected, crops, strict=True):
        windows = image.unfold(1, size - cut, 1).unfold(2, size - cut, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
        assert any(torch.equal(window, window_of_it) for window in windows)


def test_crops_come_from_every_place_of_the_reflected_image() -> None:
    image = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4)

    crops = random_crop(image.expand(500, 1, 4, 4), 4, 1, seeded())

    assert len({tuple(one.flatten().tolist()) for one in crops}) == 9


def test_every_image_is_cropped_at_a_place_of_its_own() -> None:
    images = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(30, 1, 8, 8)

    crops = random_crop(images, 4, 0, seeded())

    assert len({tuple(one.flatten().tolist()) for one in crops}) > 10


@pytest.mark.parametrize("channels", [1, 6])
def test_all_channels_are_cropped_at_the_same_place(channels: int) -> None:
    images = torch.rand(20, 1, 9, 9).expand(20, channels, 9, 9)

    crops = random_crop(images, 5, 2, seeded())

    assert torch.equal(crops, crops[:, :1].expand_as(crops))


def test_a_crop_of_the_full_size_without_padding_is_the_image() -> None:
    images = numbered(3, 6)

    assert torch.equal(random_crop(images, 6, 0, seeded()), images)


def test_the_same_seed_repeats_the_same_augmentation() -> None:
    images = numbered(20, 6)

    assert torch.equal(random_crop(images, 6, 2, seeded(3)), random_crop(images, 6, 2, seeded(3)))
    assert torch.equal(random_flip(images, seeded(3)), random_flip(images, seeded(3)))


def test_a_part_of_a_draw_augments_as_that_part_of_the_whole() -> None:
    images, odd = numbered(12, 6), slice(1, 12, 2)
    flips, corners = draw_flips(12, seeded()), draw_corners(12, 2, seeded())

    assert torch.equal(flip(images[odd], flips[odd]), flip(images, flips)[odd])
    assert torch.equal(crop(images[odd], corners[odd], 4), crop(images, corners, 4)[odd])
