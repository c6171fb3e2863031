"""Untrained: a bundle of a recipe's networks with random weights, to measure how fast they are without training them.

    python -m benchmarks.untrained imagenet-resnet50 bench-report/imagenet-resnet50

It needs no images. What it writes defends nothing, and says so: its name ends in `-untrained`. The arithmetic is that
of a trained bundle: batch norms have seen images, so that numbers are neither too large nor all alike, and purifiers,
which begin as the identity, correct pixels a little.
"""

from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn
from torch.nn import functional

from models.bundle import read_bundle
from models.bundle.manifest import FORMAT, Classifier, Manifest, Pool
from models.bundle.writer import staged, write_manifest, write_weights
from models.classifiers import ExportedConfig
from models.classifiers.normalization import Normalized
from models.preprocessing import Preprocessing
from models.purifier import Purifier
from trainer.bundling import NamedPurifiers, require_place, write_pool
from trainer.data import CIFAR10Data, DataRecipe
from trainer.errors import NetworkError, TrainerError
from trainer.history import now, versions
from trainer.networks import frozen
from trainer.pool import new_purifiers
from trainer.recipe import PoolRecipe, Recipe, read_recipe
from trainer.sampling import generator

MARK = "untrained"
WARNING = "random weights that no image was shown to, made to measure speed: this bundle defends nothing"
ATTACK = "none"
CIFAR10_CLASSES, IMAGENET_CLASSES = 10, 1000
IMAGES = 16
COLORS = 5
"""A side of the images that batch norms see: as few, and as large, as those that are sent in a measurement."""
CORRECTION = 0.01
"""Deviation of the weights of a purifier's last layer: with it pixels change by a few of their 256 levels."""


def main(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe by name, or a TOML file, as in 'purigate-train'.")],
    output: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    classes: Annotated[
        int | None,
        typer.Option(min=1, help="How many; by default those of the recipe's images, 1000 if it names none."),
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="As in 'purigate-train'.")] = None,
) -> None:
    """Writes the bundle."""
    try:
        read = read_recipe(recipe, settings or ())
        write_untrained(read, output, classes or _classes(read.data))
    except (TrainerError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    typer.echo(f"{output}: written; {WARNING}")


def write_untrained(recipe: Recipe, output: Path, classes: int) -> None:
    """Writes the bundle; it takes the place of another one in `output`. Its weights are those of the recipe's seeds.

    Raises:
        RunError: `output` is something else than a bundle.
        NetworkError: the recipe's classifier is a program, which has no weights of ours.
    """
    require_place(output)
    classifier = _classifier(recipe, classes)
    purifiers = _purifiers(recipe.pool)
    with staged(output) as folder:
        manifest = Manifest(
            format=FORMAT,
            name=f"{recipe.name}-{MARK}",
            version=datetime.now(UTC).strftime("%Y%m%d.%H%M%S"),
            labels=tuple(f"class {index}" for index in range(classes)),
            preprocessing=recipe.preprocessing,
            classifier=Classifier(
                architecture=recipe.classifier.architecture,
                classes=classes,
                normalization=recipe.classifier.normalization,
                weights=write_weights(folder, "classifier", classifier.network),
            ),
            pool=_untrained(write_pool(folder, recipe.pool, purifiers)),
            provenance={
                MARK: WARNING,
                "created": now(),
                **versions(),
                "recipe": recipe.name,
                "seeds": {"classifier": recipe.classifier.seed, "pool": recipe.pool.seed},
            },
        )
        write_manifest(folder, manifest)
        read_bundle(folder)


def _classes(data: DataRecipe) -> int:
    if isinstance(data, CIFAR10Data):
        return CIFAR10_CLASSES
    return len(data.labels) if data.labels else IMAGENET_CLASSES


def _classifier(recipe: Recipe, classes: int) -> Normalized:
    if isinstance(recipe.classifier.architecture, ExportedConfig):
        raise NetworkError("an exported program has its own weights: bundle it with purigate-train")
    network = recipe.classifier.build(classes)
    assert isinstance(network, Normalized)
    _settle(frozen(network), recipe.preprocessing, recipe.classifier.seed)
    return network


@torch.no_grad()
def _settle(network: nn.Module, size: Preprocessing, seed: int) -> None:
    """Lets batch norms take the statistics of a few random images, one layer after the other."""
    random = generator(seed, f"{MARK}/images", 0)
    colors = torch.rand(IMAGES, 3, COLORS, COLORS, generator=random)
    images = functional.interpolate(colors, (size.height, size.width), mode="bicubic").clamp(0, 1)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.training, norm.momentum = True, 1.0
    network(images)
    for norm in norms:
        norm.training = False


def _purifiers(recipe: PoolRecipe) -> NamedPurifiers:
    """As many as are served, by name, each with the name of the attack that it would be trained on."""
    training = recipe.training.model_copy(update={"start": None})
    named: NamedPurifiers = {}
    for attack in training.attacks:
        for name, purifier in new_purifiers(training, attack, recipe.seed).items():
            assert isinstance(purifier, Purifier)
            _unsettle(purifier, generator(recipe.seed, f"{MARK}/{attack}-{name}", 0))
            named[f"{attack}-{name}"] = (attack, purifier)
    return dict(islice(named.items(), recipe.selection.keep if recipe.selection else None))


@torch.no_grad()
def _unsettle(purifier: Purifier, random: torch.Generator) -> None:
    """Gives the last layer weights: those of a new purifier are zeros."""
    correction = purifier.decoder.layers[-1]
    assert isinstance(correction, nn.Conv2d)
    correction.weight.normal_(std=CORRECTION, generator=random)


def _untrained(pool: Pool) -> Pool:
    """The pool, whose purifiers do not say that they were trained on an attack."""
    purifiers = tuple(one.model_copy(update={"attack": ATTACK}) for one in pool.purifiers)
    return pool.model_copy(update={"purifiers": purifiers})


if __name__ == "__main__":
    typer.run(main)
