"""Draws are uniform, independent, and repeatable only for those who own the generator."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.randomness import SeededBytes, uniform_indices


def seeded(queries: int, seed: int = 0) -> SeededBytes:
    return SeededBytes(queries, torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=60)
@given(queries=st.integers(0, 4), count=st.integers(1, 9), bound=st.integers(1, 2**62), seed=st.integers(0, 2**32 - 1))
def test_indices_are_drawn_for_every_query_and_lie_below_the_bound(
    queries: int, count: int, bound: int, seed: int
) -> None:
    indices = uniform_indices(seeded(queries, seed), count, bound)

    assert indices.shape == (queries, count)
    assert indices.dtype == torch.int64
    assert bool(((indices >= 0) & (indices < bound)).all())


def test_a_word_with_the_sign_bit_gives_no_negative_index() -> None:
    def all_ones(count: int) -> Tensor:
        return torch.full((1, count), 255, dtype=torch.uint8)

    assert uniform_indices(all_ones, 1, 10).tolist() == [[(2**63 - 1) % 10]]


def test_every_index_is_equally_likely(chi_square: Callable[[Tensor], float]) -> None:
    indices = uniform_indices(seeded(100), 1200, 12)

    assert chi_square(torch.bincount(indices.flatten(), minlength=12)) < 37.4  # 11 degrees of freedom, p = 0.0001


@pytest.mark.parametrize("axis", ["patches", "queries"])
def test_neighboring_draws_are_independent(axis: str, chi_square: Callable[[Tensor], float]) -> None:
    indices = uniform_indices(seeded(200), 200, 3)
    if axis == "queries":
        indices = indices.T
    pairs = 3 * indices[:, 0::2] + indices[:, 1::2]

    assert chi_square(torch.bincount(pairs.flatten(), minlength=9)) < 31.8  # 8 degrees of freedom, p = 0.0001


def test_a_bound_of_one_leaves_no_choice() -> None:
    assert uniform_indices(seeded(3), 5, 1).tolist() == [[0] * 5] * 3


@pytest.mark.parametrize("bound", [0, -3])
def test_a_bound_below_one_is_refused(bound: int) -> None:
    with pytest.raises(ValueError, match=f"cannot draw below {bound}"):
        uniform_indices(seeded(1), 1, bound)


def test_the_same_seed_repeats_the_same_bytes() -> None:
    assert torch.equal(seeded(3, seed=7)(64), seeded(3, seed=7)(64))


def test_another_seed_gives_other_bytes() -> None:
    assert not torch.equal(seeded(3, seed=7)(64), seeded(3, seed=8)(64))


def test_a_second_draw_from_one_generator_gives_other_bytes() -> None:
    random_bytes = seeded(3)

    assert not torch.equal(random_bytes(64), random_bytes(64))


def test_seeded_bytes_are_a_row_of_all_byte_values_for_each_query() -> None:
    drawn = seeded(2)(10_000)

    assert drawn.shape == (2, 10_000)
    assert drawn.dtype == torch.uint8
    assert set(drawn.flatten().tolist()) == set(range(256))
