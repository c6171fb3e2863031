"""The last step of a run: a finished classifier and its pool become a bundle, measured, with its whole history."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, JsonValue
from torch import nn

from models.bundle import read_bundle
from models.bundle.manifest import FORMAT, Classifier, Manifest, Pool, PoolPurifier, WeightsFile
from models.bundle.writer import write_file, write_manifest, write_weights
from models.classifiers import ExportedConfig
from models.classifiers.normalization import Normalized
from models.purifier import Purifier
from trainer.accuracy import Accuracy, attack_images, measure
from trainer.adversary import Attack
from trainer.cost import Cost, count_cost
from trainer.diversity import Diversity, measure_diversity
from trainer.errors import RunError
from trainer.history import now, versions
from trainer.images import LabeledImages
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

NamedPurifiers = dict[str, tuple[str, Purifier]]


class Measured(BaseModel):
    """What a bundle's manifest says of its quality.

    Attributes:
        accuracy: of the classifier, of each purifier, of the pool.
        diversity: of the pool; none where it has one purifier.
        cost: counted, not timed.
    """

    model_config = ConfigDict(frozen=True)

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
        """Writes the bundle to the folder `output`, measures it, and adds the figures to its manifest.

        Raises:
            RunError: the two sets of images have different classes.
            TrainerError: something is not trained to its end, or too few purifiers are accurate enough.
        """
        if self.train.classes != self.test.classes:
            raise RunError(f"the training images are of {self.train.classes}, the test images of {self.test.classes}")
        classifier, surrogate = self.run.classifier(self.train), self.run.surrogate(self.train)
        trained = self.run.purifiers(self.train)
        kept = self._kept(classifier, trained)
        manifest = self._manifest(output, classifier, {name: trained[name] for name in kept}, tuple(trained))
        write_manifest(output, manifest)
        measured = self._measure(output, surrogate)
        figures = measured.model_dump(mode="json")
        write_manifest(output, manifest.model_copy(update={"provenance": {**manifest.provenance, **figures}}))
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
        found = measure(bundle, self.test, attacked, self.device, grids, ACCURACY_DRAWS)
        few = min(ATTACKED_IMAGES, DIVERSITY_PIXELS // clean.images[0, 0].numel())
        diversity = measure_diversity(bundle, clean.spread(few), attacked.spread(few), self.device, DIVERSITY_DRAWS)
        return Measured(accuracy=found, diversity=diversity, cost=cost)

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
            pool=self._write_pool(output, kept),
            provenance=self._provenance(all_),
        )

    def _write_classifier(self, output: Path, classifier: nn.Module) -> WeightsFile:
        if isinstance(self.run.recipe.classifier.architecture, ExportedConfig):
            return write_file(output, "classifier.pt2", self.run.recipe.classifier.content)
        assert isinstance(classifier, Normalized)
        return write_weights(output, "classifier", classifier.network)

    def _write_pool(self, output: Path, kept: NamedPurifiers) -> Pool:
        architectures = self.run.recipe.pool.training.purifiers
        entries = tuple(
            PoolPurifier(
                name=name,
                attack=attack,
                architecture=architectures[name.removeprefix(f"{attack}-")],
                weights=write_weights(output, name, purifier),
            )
            for name, (attack, purifier) in kept.items()
        )
        return Pool(grid=self.run.recipe.pool.grid, halo=self.run.recipe.pool.halo, purifiers=entries)

    def _provenance(self, candidates: tuple[str, ...]) -> dict[str, JsonValue]:
        data: dict[str, JsonValue] = {
            name: {"images": len(images), "sha256": images.fingerprint, "skipped": list(images.skipped)}
            for name, images in (("train", self.train), ("test", self.test))
        }
        start = self.run.recipe.pool.training.start
        return {
            "created": now(),
            **versions(),
            "recipe": self.run.recipe.model_dump(mode="json"),
            "data": data,
            "classifier": {**self.run.recipe.classifier.origin(), "history": self.run.recipe.classifier.history()},
            "start": start_history(start) if start else None,
            "training": self.run.history(self.train),
            "candidates": list(candidates),
        }
