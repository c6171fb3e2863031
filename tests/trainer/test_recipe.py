"""Recipes are checked to the last key before anything is trained."""

from pathlib import Path

import pytest
import torch

from models.purifier import Purifier
from trainer.recipe import RecipeError, read_recipe, shipped_recipes


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_describes_networks_that_can_be_built(name: str) -> None:
    recipe = read_recipe(name)
    size = recipe.preprocessing.height

    with torch.device("meta"):
        images = torch.zeros(2, 3, size, size)
        for network in (recipe.classifier, recipe.surrogate):
            assert network.architecture.build(10)(images).shape == (2, 10)
        for config in recipe.pool.training.purifiers.values():
            assert Purifier(config)(images).shape == images.shape


def test_the_recipe_of_the_embedded_bundle_is_shipped() -> None:
    recipe = read_recipe("cifar10-resnet18")

    assert len(recipe.pool.training.attacks) * len(recipe.pool.training.purifiers) == 12
    assert recipe.classifier != recipe.surrogate


def test_a_recipe_is_read_from_any_file(recipe_file: Path) -> None:
    assert read_recipe(str(recipe_file)).name == "toy"


def test_an_unknown_recipe_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(RecipeError, match=r"no-such-recipe.*cifar10-resnet18"):
        read_recipe("no-such-recipe")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="shipped recipes are"):
        read_recipe(str(tmp_path))


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("name = ")

    with pytest.raises(RecipeError, match=r"broken\.toml: not TOML"):
        read_recipe(str(path))


@pytest.mark.parametrize(
    ("right", "wrong", "where"),
    [
        ("halo = 1", "hallo = 1", r"pool\.hallo"),
        ("crop = 8", "krop = 8", r"pool\.training\.krop"),
        ("step_size", "stepsize", r"pool\.training\.attacks\.pgd\.stepsize"),
        ("batch_size = 4, phases", "batchsize = 4, phases", r"classifier\.training\.batchsize"),
        ("features = 4, blocks", "feature = 4, blocks", r"pool\.training\.purifiers\.edsr.*feature"),
        ('kind = "edsr"', 'kind = "edsir"', r"pool\.training\.purifiers\.edsr.*'edsir'"),
        ('kind = "resnet", width = 4', 'kind = "exported", width = 4', r"classifier\.architecture.*'exported'"),
        ("grid = 2", "grid = 0", r"pool\.grid"),
        ("height = 12", "height = 13", "does not fit"),
    ],
)
def test_a_mistake_is_told_by_file_and_key(recipe_file: Path, right: str, wrong: str, where: str) -> None:
    text = recipe_file.read_text()
    assert right in text
    recipe_file.write_text(text.replace(right, wrong))

    with pytest.raises(RecipeError, match=rf"toy\.toml: .*{where}"):
        read_recipe(str(recipe_file))
