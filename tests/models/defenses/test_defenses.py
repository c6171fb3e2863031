"""Defenses are built by their names out of a bundle."""

from pathlib import Path

import pytest
import torch

from models.bundle import Bundle, read_bundle
from models.defenses import DEFENSES, build_defense
from models.defenses.puridefense import PuriDefense
from models.randomness import SeededBytes


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path) -> Bundle:
    return read_bundle(bundle_folder)


@pytest.mark.parametrize("name", DEFENSES)
def test_every_listed_defense_is_built_and_keeps_shape_and_range(bundle: Bundle, name: str) -> None:
    defense = build_defense(name, bundle)
    images = torch.rand(2, 3, 32, 32)

    with torch.inference_mode():
        defended = defense(images, defense.draw(SeededBytes(2, torch.Generator().manual_seed(0))))

    assert defense.name == name
    assert defended.shape == images.shape
    assert 0 <= float(defended.amin()) < float(defended.amax()) <= 1


def test_puridefense_has_the_pool_grid_and_halo_of_the_bundle(bundle: Bundle) -> None:
    defense = build_defense("puridefense", bundle)

    assert isinstance(defense, PuriDefense)
    assert (defense.grid, defense.halo) == (bundle.manifest.pool.grid, bundle.manifest.pool.halo)
    assert defense.purifiers == tuple(purifier.name for purifier in bundle.manifest.pool.purifiers)


def test_an_unknown_name_is_refused_with_those_that_there_are(bundle: Bundle) -> None:
    with pytest.raises(ValueError, match=r"'magic'.*none, puridefense"):
        build_defense("magic", bundle)
