"""The bundle that a fresh checkout serves."""

import pytest
import torch

from models.bundle import Bundle, read_bundle
from models.defenses import build_defense
from models.randomness import SeededBytes
from service.settings import embedded_bundle
from trainer.recipe import Recipe, read_recipe

LEVELS = 255


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return read_bundle(embedded_bundle())


@pytest.fixture(scope="module")
def attacked() -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth pictures, and the same under full steps of 8 levels with random signs, as FGSM's look to a purifier."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(16, 3, 5, 5, generator=generator)
    clean = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear", align_corners=True)
    signs = torch.randint(0, 2, clean.shape, generator=generator) * 2 - 1
    return clean, torch.clamp(clean + 8 / LEVELS * signs, 0, 1)


def test_it_has_the_twelve_purifiers_of_the_paper(embedded: Bundle) -> None:
    kinds = {
        (entry.attack, entry.architecture.encoder.kind, entry.architecture.encoder.features)
        for entry in embedded.manifest.pool.purifiers
    }
    assert kinds == {(a, e, f) for a in ("fgsm", "pgd", "bim") for e in ("edsr", "rcan") for f in (32, 64)}
    assert len(embedded.purifiers) == 12


def test_the_shipped_recipe_makes_another_one_like_it(embedded: Bundle) -> None:
    made = Recipe.model_validate(embedded.manifest.provenance["recipe"])
    shipped = read_recipe("cifar10-resnet18")

    assert made.surrogate
    assert shipped.surrogate
    assert (made.name, made.preprocessing) == (shipped.name, shipped.preprocessing)
    assert made.surrogate.architecture == shipped.surrogate.architecture
    assert made.classifier.architecture == shipped.classifier.architecture
    assert (made.pool.grid, made.pool.halo, made.pool.seed) == (shipped.pool.grid, shipped.pool.halo, shipped.pool.seed)
    assert made.pool.training.attacks == shipped.pool.training.attacks
    assert made.pool.training.purifiers == shipped.pool.training.purifiers


def test_it_tells_no_path_of_the_machine_that_made_it(embedded: Bundle) -> None:
    assert '"/' not in embedded.manifest.model_dump_json()


def test_every_purifier_brings_perturbed_images_nearer_to_the_clean_ones(
    embedded: Bundle, attacked: tuple[torch.Tensor, torch.Tensor]
) -> None:
    clean, perturbed = attacked
    before = (perturbed - clean).abs().mean()
    with torch.inference_mode():
        after = {name: (one(perturbed) - clean).abs().mean() / before for name, one in embedded.purifiers.items()}
    assert max(after.values()) < 0.9, after


def test_different_draws_give_different_scores(embedded: Bundle, attacked: tuple[torch.Tensor, torch.Tensor]) -> None:
    defense = build_defense("puridefense", embedded)
    image = attacked[1][:1].expand(8, -1, -1, -1)
    draws = defense.draw(SeededBytes(8, torch.Generator().manual_seed(0)))
    with torch.inference_mode():
        scores = torch.softmax(embedded.classifier(defense(image, draws)), dim=1)
    assert len({tuple(row.tolist()) for row in scores}) == 8
