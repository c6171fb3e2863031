"""Diversity and sign flips on the toy bundle, where one purifier alone leaves nothing to chance."""

from pathlib import Path

import pytest
import torch

from evaluation.images import Sample
from evaluation.served import LocalServed
from evaluation.theory import equation_nine, measure_diversity, measure_pool, sign_flips


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


def test_a_larger_pool_is_no_less_diverse_and_turns_more_signs(served: LocalServed, photos: Sample) -> None:
    record = measure_diversity(served, photos, seed=0)

    spreads = [point.nu for point in record.points]
    assert [point.purifiers for point in record.points] == [1, 2, 3, 4]
    assert spreads == sorted(spreads)
    assert spreads[-1] > 0
    assert 0 == record.points[0].flips < record.points[-1].flips < 0.6
    assert record.points[-1].lipschitz > 0


def test_what_equation_9_gives_grows_with_nu_and_is_not_always_one(
    served: LocalServed, photos: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = []
    for spread in (1e-4, 2e-4):
        monkeypatch.setattr("evaluation.theory.nu", lambda _, spread=spread: spread)
        points.append(measure_pool(served, photos, ["pgd-edsr", "pgd-rcan"], seed=0))

    assert 0 < points[0].bound < 0.5
    assert points[1].bound == pytest.approx(2 * points[0].bound, rel=0.01)


def test_signs_turn_no_more_often_than_equation_9_says_where_its_premises_hold() -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([[1.0], [-4.0], [0.5], [8.0]])
    noise = 2 * torch.rand(4, 10_000, generator=generator) - 1
    flips, estimate = sign_flips(means + noise), equation_nine(means + noise, lipschitz=1.0, spread=0.5)

    assert 0.05 < flips < estimate < 0.7


def test_equation_9_is_evaluated_for_each_image_and_never_above_one() -> None:
    differences = torch.tensor([[4.0, 12.0], [1.0, -0.5]])  # means 8 and 0.25

    assert equation_nine(differences, lipschitz=2.0, spread=0.5) == pytest.approx((2 / 8 + 1) / 2)


def test_a_flip_is_told_by_the_sign_of_the_mean_and_not_by_that_of_most() -> None:
    assert sign_flips(torch.tensor([[9.0, -1.0, -1.0, -1.0]])) == pytest.approx(3 / 4)
    assert sign_flips(torch.tensor([[1.0, 2.0], [-3.0, -4.0]])) == 0


def test_a_seed_gives_the_same_points(served: LocalServed, photos: Sample) -> None:
    first, second = (measure_pool(served, photos, ["pgd-edsr", "pgd-rcan"], seed=1) for _ in range(2))

    assert first == second
