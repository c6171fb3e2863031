"""The noise of query attacks: bounded, on the 8-bit grid, of three families, and of nothing but its generator."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer.query_noise import QueryNoise

NOISE = QueryNoise(images=8, epsilon=(4, 12))
GRAY = torch.full((90, 3, 16, 20), 128 / 255)


def draw(images: Tensor, seed: int = 0, noise: QueryNoise = NOISE) -> Tensor:
    return noise.draw(images.shape, torch.Generator().manual_seed(seed)).add(images)


def family(offset: Tensor) -> str:
    """What an image of gray shows, from its noise alone: `(3, H, W)` in levels."""
    values = offset.abs()
    if (values > 0).float().mean() < 0.05:
        return "dots"
    return "painted" if len(torch.unique(values[values > 0].round())) == 1 else "dense"


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    low=st.integers(1, 12),
    more=st.integers(0, 12),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
def test_noisy_images_are_images_of_eight_bits(seed: int, low: int, more: int, height: int, width: int) -> None:
    images = torch.randint(256, (6, 3, height, width), generator=torch.Generator().manual_seed(seed)) / 255

    noisy = draw(images, seed, QueryNoise(images=6, epsilon=(low, low + more)))

    assert noisy.shape == images.shape
    assert noisy.dtype == torch.float32
    assert float(noisy.amin()) >= 0
    assert float(noisy.amax()) <= 1
    torch.testing.assert_close(noisy * 255, (noisy * 255).round(), atol=1e-3, rtol=0)


def test_each_image_shows_one_of_three_families_with_even_odds() -> None:
    offsets = 255 * (draw(GRAY) - GRAY)

    found = Counter(family(one) for one in offsets)

    assert found.keys() == {"dots", "painted", "dense"}
    assert min(found.values()) > 15


def test_painted_and_dense_noise_stays_within_epsilon_and_dots_within_sixty_four_levels() -> None:
    strongest: dict[str, float] = {}
    for one in 255 * (draw(GRAY) - GRAY):
        kind = family(one)
        strongest[kind] = max(strongest.get(kind, 0), float(one.abs().amax()))

    assert 8 < strongest["painted"] <= 12.01
    assert 8 < strongest["dense"] <= 12.01
    assert 25 < strongest["dots"] <= 64.01


def test_painted_images_show_stripes_and_squares_of_full_strength_in_both_directions() -> None:
    painted = [one for one in 255 * (draw(GRAY) - GRAY) if family(one) == "painted"]

    vertical = [one for one in painted if one.std(1).mean() < one.std(2).mean() / 2]
    horizontal = [one for one in painted if one.std(2).mean() < one.std(1).mean() / 2]
    assert len(vertical) > 2
    assert len(horizontal) > 2
    assert all(len(torch.unique(one)) > 1 for one in painted)
    assert any(len(torch.unique(one.round())) == 3 for one in painted), "some have no stripes below their squares"


def lone_squares(offsets: Tensor) -> list[int]:
    """The sides of squares that lie alone on images of gray."""
    there = (offsets != 0).any(1)
    heights, widths, areas = there.any(2).sum(1), there.any(1).sum(1), there.sum((1, 2))
    one_color = ((offsets.sum((2, 3)).abs() - offsets.abs().sum((2, 3))).abs() < 1e-3) & (offsets != 0).any((2, 3))
    alone = (areas == heights * widths) & (heights == widths) & one_color.all(1)
    return heights[alone].tolist()


def test_squares_are_mostly_small_and_at_times_as_large_as_an_attacker_may_begin_with() -> None:
    gray = GRAY[:1].expand(9000, -1, -1, -1)

    sides = lone_squares(draw(gray) - gray)

    assert min(sides) == 1
    assert 8 < max(sides) <= 12, "of 16 pixels; an attack that begins with half of the area has squares of 11"
    assert sum(side <= 4 for side in sides) > len(sides) / 3
    assert sum(side > 4 for side in sides) > len(sides) / 10


def test_squares_that_lie_one_on_another_raise_and_lower_equally_often() -> None:
    gray = GRAY[:1].expand(900, -1, -1, -1)
    offsets = draw(gray) - gray
    painted = torch.cat([one.flatten() for one in offsets if family(255 * one) == "painted"])

    assert 0.45 < float((painted > 0).sum() / (painted != 0).sum()) < 0.55


def test_the_same_generator_gives_the_same_noise_and_another_other_noise() -> None:
    assert torch.equal(draw(GRAY, 3), draw(GRAY, 3))
    assert not torch.equal(draw(GRAY, 3), draw(GRAY, 4))


@pytest.mark.parametrize("chosen", [slice(0, 90, 2), slice(1, 90, 2)])
def test_a_part_of_a_draw_is_that_part_of_all_of_it(chosen: slice) -> None:
    whole = NOISE.draw(GRAY.shape, torch.Generator().manual_seed(0))

    assert torch.equal(whole.part(chosen).add(GRAY[chosen]), whole.add(GRAY)[chosen])
