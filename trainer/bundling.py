"""The last step of a run: a finished classifier and its pool become a bundle, measured, with its whole history."""

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, JsonValue
from torch import Tensor, nn

from models.bundle import BundleError, read_bundle, read_manifest
from models.bundle.manifest import FORMAT, MANIFEST_FILE, Classifier, Manifest, Pool, PoolPurifier, WeightsFile
from models.bundle.writer import staged, write_file, write_manifest, write_weights
from models.classifiers import ExportedConfig
from models.classifiers.normalization import Normalized
from models.purifier import Purifier
from trainer.accuracy import Accuracy, AttackedBy, AttackedImages, attack_images, measure
from trainer.adversary import Attack
from trainer.cost import Cost, count_cost
from trainer.diversity import Diversity, measure_diversity
from trainer.errors import RunError
from trainer.history import now, versions
from trainer.images import LabeledImages
from trainer.networks import NetworkRecipe
from trainer.recipe import PoolRecipe
from trainer.run import Run
from trainer.selection import choose
from trainer.start import start_history

ACCURACY_DRAWS = 5
ACCURACY_GRIDS = (1, 2, 3)
DIVERSITY_DRAWS = 10
DIVERSITY_PIXELS = 2_000_000
"""Of the images that diversity is measured on; what twelve purifiers make of them fits in about 1 GiB."""
ATTACKED_IMAGES = 1000
SELECTION_IMAGES = 1000
TRANSFERRED_ATTACK = Attack(kind="pgd", epsilon=(8, 8), steps=(10, 10), step_size=(0.25, 0.25))

SHOWN = 10
PARTIAL = ".partial"
"""The end of the name of a file whose writing was killed."""

NamedPurifiers = dict[str, tuple[str, Purifier]]


class DataSet(BaseModel):
    """Images that a bundle was made with.

    Attributes:
        images: how many.
        sha256: of pixels, labels and classes.
        skipped: files that could not be read.
    """

    model_config = ConfigDict(frozen=True)

    images: int
    sha256: str
    skipped: tuple[str, ...]


class MeasuredSet(DataSet):
    """Images that a bundle was measured on.

    Attributes:
        overlap: how many of them are training images too, to the last pixel.
    """

    overlap: int


class Data(BaseModel):
    """All images that a bundle was made with."""

    model_config = ConfigDict(frozen=True)

    train: DataSet
    test: MeasuredSet


class Measured(BaseModel):
    """What a bundle's manifest says of its quality.

    Attributes:
        data: what it was trained and measured on.
        accuracy: of the classifier, of each purifier, of the pool.
        diversity: of the pool; none where it has one purifier.
        cost: counted, not timed.
    """

    model_config = ConfigDict(frozen=True)

    data: Data
    accuracy: Accuracy
    diversity: Diversity | None
    cost: Cost


@dataclass(frozen=True)
class Bundling:
    """Writes and measures the bundle of one run.

    Attributes:
        run: trained to its end.
        device: where it is measured.
        train: what it was trained on.
        test: images that nothing was trained on.
    """

    run: Run
    device: torch.device
    train: LabeledImages
    test: LabeledImages

    def write(self, output: Path) -> Measured:
        """Writes and measures the bundle, then puts it in the place of `output`; a bundle that is there goes only then.

        Raises:
            RunError: the two sets of images have different classes, or `output` is something else than a bundle.
            TrainerError: something is not trained to its end, or too few purifiers are accurate enough.
        """
        require_place(output)
        require_same_classes(self.train, self.test)
        classifier, surrogate = self.run.classifier(self.train), self.run.surrogate(self.train)
        trained = self.run.purifiers(self.train)
        kept = self._kept(classifier, trained)
        with staged(output) as folder:
            manifest = self._manifest(folder, classifier, {name: trained[name] for name in kept}, tuple(trained))
            write_manifest(folder, manifest)
            measured = self._measure(folder, surrogate)
            figures = measured.model_dump(mode="json")
            write_manifest(folder, manifest.model_copy(update={"provenance": {**manifest.provenance, **figures}}))
        return measured

    def _kept(self, classifier: nn.Module, trained: NamedPurifiers) -> tuple[str, ...]:
        """The pool, chosen on training images: one chosen on the test images would look better on them than it is."""
        selection = self.run.recipe.pool.selection
        if selection is None:
            return tuple(trained)
        purifiers = {name: purifier for name, (_, purifier) in trained.items()}
        images = self.train.spread(SELECTION_IMAGES)
        return choose(selection, classifier, purifiers, images, self.device)

    def _measure(self, output: Path, surrogate: nn.Module) -> Measured:
        bundle = read_bundle(output)
        cost = count_cost(bundle)
        clean = self.test.spread(ATTACKED_IMAGES)
        attacked = attack_images(surrogate, clean, TRANSFERRED_ATTACK, self.device)
        grids = tuple(sorted({*ACCURACY_GRIDS, bundle.manifest.pool.grid}))
        by: AttackedBy = "surrogate" if self.run.recipe.surrogate else "classifier"
        told = AttackedImages(attacked, by, TRANSFERRED_ATTACK)
        found = measure(bundle, self.test, told, self.device, grids, ACCURACY_DRAWS)
        few = max(1, min(ATTACKED_IMAGES, DIVERSITY_PIXELS // clean.images[0, 0].numel()))
        diversity = measure_diversity(bundle, clean.spread(few), attacked.spread(few), self.device, DIVERSITY_DRAWS)
        return Measured(data=self._data(), accuracy=found, diversity=diversity, cost=cost)

    def _manifest(self, output: Path, classifier: nn.Module, kept: NamedPurifiers, all_: tuple[str, ...]) -> Manifest:
        recipe = self.run.recipe
        return Manifest(
            format=FORMAT,
            name=recipe.name,
            version=datetime.now(UTC).strftime("%Y%m%d.%H%M%S"),
            labels=self.train.classes,
            preprocessing=recipe.preprocessing,
            classifier=Classifier(
                architecture=recipe.classifier.architecture,
                classes=len(self.train.classes),
                normalization=recipe.classifier.normalization,
                weights=self._write_classifier(output, classifier),
            ),
            pool=write_pool(output, recipe.pool, kept),
            provenance=self._provenance(all_),
        )

    def _write_classifier(self, output: Path, classifier: nn.Module) -> WeightsFile:
        if isinstance(self.run.recipe.classifier.architecture, ExportedConfig):
            return write_file(output, "classifier.pt2", self.run.recipe.classifier.content)
        assert isinstance(classifier, Normalized)
        return write_weights(output, "classifier", classifier.network)

    def _data(self) -> Data:
        train = _described(self.train)
        test = MeasuredSet(**dict(_described(self.test)), overlap=count_overlap(self.train, self.test))
        return Data(train=train, test=test)

    def _provenance(self, candidates: tuple[str, ...]) -> dict[str, JsonValue]:
        """What is known before anything is measured."""
        recipe = self.run.recipe
        start = recipe.pool.training.start
        return {
            "created": now(),
            **versions(),
            "recipe": recipe.model_dump(mode="json"),
            "networks": {
                "classifier": _network_history(recipe.classifier),
                "surrogate": _network_history(recipe.surrogate) if recipe.surrogate else None,
            },
            "start": start_history(start) if start else None,
            "training": self.run.history(self.train),
            "candidates": list(candidates),
        }


def write_pool(folder: Path, recipe: PoolRecipe, kept: NamedPurifiers) -> Pool:
    """Writes the weights of purifiers to `folder`, and says what the manifest has to say of their pool.

    Args:
        folder: of the bundle.
        recipe: of the pool, whose architectures they have.
        kept: by name, which is that of the attack and of the architecture.
    """
    architectures = recipe.training.purifiers
    entries = tuple(
        PoolPurifier(
            name=name,
            attack=attack,
            architecture=architectures[name.removeprefix(f"{attack}-")],
            weights=write_weights(folder, name, purifier),
        )
        for name, (attack, purifier) in kept.items()
    )
    return Pool(grid=recipe.grid, halo=recipe.halo, purifiers=entries)


def require_place(output: Path) -> None:
    """Checks that a bundle may take the place of `output`, of which nothing would be left.

    Raises:
        RunError: it is a file, a mounted volume, or a folder that holds something else than a bundle.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise RunError(f"{output}: is a file; name a folder for the bundle")
    if os.path.ismount(output):
        raise RunError(f"{output}: a mounted volume cannot be replaced; name a folder in it")
    names = sorted(path.name for path in output.iterdir())
    if not names:
        return
    if MANIFEST_FILE not in names:
        raise RunError(f"{output}: holds files but no bundle ({_listed(names)}); name another folder")
    parts = _bundle_files(output)
    others = [name for name in names if name not in parts and not name.endswith(PARTIAL)]
    if others:
        raise RunError(f"{output}: holds what is no part of a bundle ({_listed(others)}); name another folder")


def _bundle_files(folder: Path) -> set[str]:
    """The names of the files of the bundle in `folder`; a file that its manifest does not name is not one of them.

    Raises:
        RunError: the manifest cannot be read.
    """
    try:
        manifest = read_manifest(folder)
    except BundleError as error:
        raise RunError(f"{error}; what it names cannot be told from other files: name another folder") from error
    weights = (manifest.classifier.weights, *(purifier.weights for purifier in manifest.pool.purifiers))
    return {MANIFEST_FILE, *(one.file for one in weights)}


def require_same_classes(train: LabeledImages, test: LabeledImages) -> None:
    """Checks that a network trained on one can be measured on the other.

    Raises:
        RunError: their classes differ; the message names those that only one has.
    """
    if train.classes == test.classes:
        return
    only_train, only_test = set(train.classes) - set(test.classes), set(test.classes) - set(train.classes)
    told = [
        f"only the {which} images have {_listed([repr(name) for name in sorted(names)])}"
        for which, names in (("training", only_train), ("test", only_test))
        if names
    ]
    raise RunError(
        f"the training and the test images differ in their classes: {'; '.join(told) or 'they are in another order'}"
    )


def count_overlap(train: LabeledImages, test: LabeledImages) -> int:
    """How many images of `test` are in `train` too, to the last pixel, whatever their labels."""
    known = {_digest(image) for image in train.images}
    return sum(_digest(image) in known for image in test.images)


def _digest(image: Tensor) -> bytes:
    return hashlib.sha256(image.contiguous().numpy().data).digest()


def _described(data: LabeledImages) -> DataSet:
    return DataSet(images=len(data), sha256=data.fingerprint, skipped=data.skipped)


def _network_history(recipe: NetworkRecipe) -> dict[str, JsonValue]:
    return {**recipe.origin(), "history": recipe.history()}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
