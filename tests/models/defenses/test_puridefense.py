"""PuriDefense: one purifier a patch, drawn for that patch and query, and nothing seen beyond the halo."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.defenses.puridefense import PuriDefense
from models.pool import PurifierPool
from models.purifier import Purifier, PurifierConfig
from models.randomness import SeededBytes

LEVELS = (0.125, 0.25, 0.375, 0.5)


@pytest.fixture(scope="session")
def painters(painter: Callable[[float], Purifier]) -> PurifierPool:
    return PurifierPool({str(level): painter(level) for level in LEVELS})


@pytest.fixture
def active_pool(purifier_config: PurifierConfig, active_purifier: Callable[[PurifierConfig], Purifier]) -> PurifierPool:
    purifiers = {name: active_purifier(purifier_config) for name in ("one", "two", "three")}
    return PurifierPool(purifiers).requires_grad_(False)


def seeded(queries: int) -> SeededBytes:
    return SeededBytes(queries, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("grid", [1, 2, 3, 5])
def test_new_purifiers_give_back_the_identical_image(purifier_config: PurifierConfig, grid: int) -> None:
    pool = PurifierPool({"one": Purifier(purifier_config), "two": Purifier(purifier_config)})
    defense = PuriDefense(pool.requires_grad_(False), grid, halo=2)
    images = torch.rand(3, 3, 11, 14)

    assert torch.equal(defense(images, defense.draw(seeded(3))), images)


@pytest.mark.parametrize("halo", [0, 2])
def test_every_pixel_of_a_patch_is_purified_by_the_purifier_that_its_patch_drew(
    painters: PurifierPool, halo: int
) -> None:
    draws = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 0], [3, 3, 3, 2, 2, 2, 1, 1, 0]])

    purified = PuriDefense(painters, grid=3, halo=halo)(torch.zeros(2, 3, 13, 10), draws)

    blocks = torch.tensor(LEVELS)[draws].view(2, 1, 3, 3)
    painted = blocks.repeat_interleave(torch.tensor([4, 4, 5]), 2).repeat_interleave(torch.tensor([3, 3, 4]), 3)
    assert torch.equal(purified, painted.expand(2, 3, 13, 10))


def test_a_batch_gives_what_its_images_give_one_by_one(active_pool: PurifierPool) -> None:
    defense = PuriDefense(active_pool, grid=2, halo=2)
    images, draws = torch.rand(4, 3, 9, 12), defense.draw(seeded(4))

    together = defense(images, draws)

    alone = torch.cat([defense(images[index : index + 1], draws[index : index + 1]) for index in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_a_purified_patch_is_the_purifiers_output_on_its_window(active_pool: PurifierPool) -> None:
    images = torch.rand(1, 3, 12, 12)
    purified = PuriDefense(active_pool, grid=2, halo=2)(images, torch.tensor([[0, 1, 2, 0]]))

    second = active_pool.purifiers[1](images[..., :8, 4:])
    torch.testing.assert_close(purified[..., :6, 6:], second[..., :6, 2:], atol=1e-6, rtol=0)


def test_a_pixel_beyond_the_halo_does_not_change_a_patch(active_pool: PurifierPool) -> None:
    defense = PuriDefense(active_pool, grid=2, halo=2)
    images, draws = torch.rand(1, 3, 16, 16), torch.tensor([[0, 1, 2, 0]])
    changed = images.clone()
    changed[..., 10:, 10:] = 1 - changed[..., 10:, 10:]

    before, after = defense(images, draws), defense(changed, draws)

    assert torch.equal(after[..., :8, :], before[..., :8, :])
    assert torch.equal(after[..., :8], before[..., :8])
    assert not torch.allclose(after[..., 8:, 8:], before[..., 8:, 8:])


def test_a_pixel_of_the_halo_changes_the_patch_beside_it(active_pool: PurifierPool) -> None:
    defense = PuriDefense(active_pool, grid=2, halo=2)
    images, draws = torch.rand(1, 3, 16, 16), torch.tensor([[0, 1, 2, 0]])
    changed = images.clone()
    changed[..., :8, 9] = 1 - changed[..., :8, 9]

    before, after = defense(images, draws), defense(changed, draws)

    assert not torch.allclose(after[..., :8, :8], before[..., :8, :8])


def test_every_patch_of_every_query_draws_all_purifiers_equally_often(
    painters: PurifierPool, chi_square: Callable[[Tensor], float]
) -> None:
    draws = PuriDefense(painters, grid=2, halo=0).draw(seeded(20_000))

    assert draws.shape == (20_000, 4)
    for patch in draws.T:
        assert chi_square(torch.bincount(patch, minlength=4)) < 21.1  # 3 degrees of freedom, p = 0.0001


@pytest.mark.parametrize("other", [1, 2, 3])
def test_the_patches_of_one_query_draw_independently(
    painters: PurifierPool, chi_square: Callable[[Tensor], float], other: int
) -> None:
    draws = PuriDefense(painters, grid=2, halo=0).draw(seeded(20_000))
    pairs = 4 * draws[:, 0] + draws[:, other]

    assert chi_square(torch.bincount(pairs, minlength=16)) < 44.3  # 15 degrees of freedom, p = 0.0001


def test_successive_queries_draw_independently(painters: PurifierPool, chi_square: Callable[[Tensor], float]) -> None:
    draws = PuriDefense(painters, grid=1, halo=0).draw(seeded(40_000))
    pairs = 4 * draws[0::2] + draws[1::2]

    assert chi_square(torch.bincount(pairs.flatten(), minlength=16)) < 44.3  # 15 degrees of freedom, p = 0.0001


def test_a_pool_of_one_purifies_every_patch_with_it(painter: Callable[[float], Purifier]) -> None:
    defense = PuriDefense(PurifierPool({"only": painter(0.25)}), grid=3, halo=1)
    images = torch.zeros(2, 3, 8, 8)

    assert torch.equal(defense(images, defense.draw(seeded(2))), torch.full_like(images, 0.25))


def test_an_image_smaller_than_the_grid_is_refused(painters: PurifierPool) -> None:
    defense = PuriDefense(painters, grid=4, halo=0)

    with pytest.raises(ValueError, match="3x9 pixels"):
        defense(torch.zeros(1, 3, 9, 3), defense.draw(seeded(1)))


def test_draws_point_at_the_purifiers_by_name(painters: PurifierPool) -> None:
    assert PuriDefense(painters, grid=2, halo=0).purifiers == ("0.125", "0.25", "0.375", "0.5")


def test_without_one_purifier_the_grid_stays_and_draws_point_at_the_others(purifier_config: PurifierConfig) -> None:
    defense = PuriDefense(PurifierPool({name: Purifier(purifier_config) for name in "abc"}), grid=2, halo=1).without(
        "a"
    )
    assert (defense.purifiers, defense.grid, defense.halo) == (("b", "c"), 2, 1)
    assert set(defense.draw(seeded(100)).flatten().tolist()) == {0, 1}
