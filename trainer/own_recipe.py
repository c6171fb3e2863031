"""Writes a first recipe for a user's own images, and their own classifier if they have one; they edit it from there."""

import json
import re
import secrets
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from models.classifiers.torchvision_model import classifiers
from trainer.errors import TrainerError
from trainer.recipe import check_recipe, shipped_recipes

EXPORTED = "exported"
LARGE = 96
"""Side in pixels from which purifiers have to fold pixels, or they cost more than the classifier."""
RESIZE = 256 / 224
"""How much larger than the crop the field scales an image before it cuts out the center."""
IMAGENET = "{ mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }"

HEAD = """\
# Every key is told in docs/training.md. Relative paths start at the folder that the command runs in.
name = {name}

# Folders of class folders, whose alphabetical order is that of the classifier's outputs. If it is another one, name all
# classes in the right order: labels = ["cat", "dog"]. `per_class = 100` takes so many training images of each.
[data]
kind = "folder"
train = {train}
test = {test}

# The shorter side is scaled to `resize`, then the center is cut out: the way the classifier was trained.
[preprocessing]
resize = {resize}
height = {size}
width = {size}
"""
GIVEN = """
# `normalization` is what the classifier expects; without it, it gets pixels in [0, 1]. The purifiers learn from images
# that are adversarial to this classifier; better, name another network in a section [surrogate] of the same form.
[classifier]
architecture = {architecture}
{normalization}weights = {weights}
"""
TRAINED = """
[classifier]
seed = 0
architecture = {architecture}
normalization = {normalization}
training = {{ peak_learning_rate = 0.1, phases = [{{ epochs = 30, resolution = {size} }}] }}

# Adversarial images are made against this one.
[surrogate]
seed = 1
architecture = {architecture}
normalization = {normalization}
training = {{ peak_learning_rate = 0.1, phases = [{{ epochs = 10, resolution = {size} }}] }}

"""

POOL = "\n[pool]\n"
SHIPPED_SEED = re.compile(r"^seed = \d+$", re.MULTILINE)
MOST_SEEDS = 2**31


@dataclass(frozen=True)
class OwnRecipe:
    """What a user has.

    Attributes:
        name: of the bundle.
        train: images to learn from, `ROOT/<class>/<file>`.
        test: images to measure on.
        size: side of the classifier's input, in pixels.
        weights: the file of the classifier; none where it is to be trained.
        architecture: `exported`, or the name of a torchvision network.
        pool_seed: of the purifiers. Nobody else should know it: who has the images, the classifier and the seed can
            train the same pool.
    """

    name: str
    train: Path
    test: Path
    size: int
    weights: Path | None = None
    architecture: str | None = None
    pool_seed: int = field(default_factory=lambda: secrets.randbelow(MOST_SEEDS))

    def text(self) -> str:
        """The recipe in TOML: the user's images and classifier, and the shipped pool for images of their size.

        Raises:
            TrainerError: what the user has does not make a recipe.
        """
        large = self.size >= LARGE
        head = HEAD.format(
            name=_quoted(self.name),
            train=_quoted(self.train),
            test=_quoted(self.test),
            size=self.size,
            resize=round(self.size * RESIZE) if large else self.size,
        )
        shipped = shipped_recipes()["imagenet-resnet50" if large else "cifar10-resnet18"].read_text(encoding="utf-8")
        seed = f"seed = {self.pool_seed}  # drawn for you; keep it secret"
        pool = SHIPPED_SEED.sub(seed, shipped[shipped.index(POOL) :], count=1)
        text = head + self._networks() + pool
        check_recipe(tomllib.loads(text), self.name)
        return text

    def _networks(self) -> str:
        architecture = self.architecture
        if self.weights and architecture is None and self.weights.suffix == ".pt2":
            architecture = EXPORTED
        if architecture not in (None, EXPORTED, *classifiers()):
            raise TrainerError(f"--architecture {architecture}: neither `exported` nor a classifier of torchvision")
        if self.weights is None:
            if architecture == EXPORTED:
                raise TrainerError("--architecture exported: name the program's file with --classifier")
            return TRAINED.format(architecture=self._trained(architecture), normalization=IMAGENET, size=self.size)
        if architecture is None:
            raise TrainerError(f"--classifier {self.weights}: say which network of torchvision with --architecture")
        normalization = "" if architecture == EXPORTED else f"normalization = {IMAGENET}\n"
        weights = _quoted(self.weights)
        return GIVEN.format(architecture=_described(architecture), normalization=normalization, weights=weights)

    def _trained(self, architecture: str | None) -> str:
        if architecture is None and self.size < LARGE:
            return '{ kind = "resnet", width = 64, blocks = [2, 2, 2, 2] }'
        return _described(architecture or "resnet18")


def _described(architecture: str) -> str:
    if architecture == EXPORTED:
        return '{ kind = "exported" }'
    return f'{{ kind = "torchvision", name = {_quoted(architecture)} }}'


def _quoted(text: str | Path) -> str:
    return json.dumps(str(text), ensure_ascii=False)
