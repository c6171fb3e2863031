"""Diversity and sign flips on the toy bundle, where one purifier alone leaves nothing to chance."""

from pathlib import Path

import pytest
import torch

from evaluation.images import Sample
from evaluation.served import LocalServed
from evaluation.theory import measure_diversity, measure_pool


@pytest.fixture(scope="module")
def served(bundle_folder: Path) -> LocalServed:
    return LocalServed(bundle_folder, "cpu", "float32")


@pytest.fixture(scope="module")
def photos() -> Sample:
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return Sample(images, torch.tensor([0, 1, 2]), (0, 1, 2))


def test_one_purifier_has_no_diversity_and_turns_no_sign(served: LocalServed, photos: Sample) -> None:
    point = measure_pool(served, photos, ["pgd-edsr"], seed=0)

    assert (point.nu, point.flips, point.bound) == (0, 0, 0)


def test_a_larger_pool_is_no_less_diverse_and_the_bound_holds(served: LocalServed, photos: Sample) -> None:
    record = measure_diversity(served, photos, seed=0)

    spreads = [point.nu for point in record.points]
    assert [point.purifiers for point in record.points] == [1, 2, 3, 4]
    assert spreads == sorted(spreads)
    assert spreads[-1] > 0
    assert all(point.flips <= point.bound for point in record.points)
    assert record.points[-1].lipschitz > 0


def test_a_seed_gives_the_same_points(served: LocalServed, photos: Sample) -> None:
    first, second = (measure_pool(served, photos, ["pgd-edsr", "pgd-rcan"], seed=1) for _ in range(2))

    assert first == second
