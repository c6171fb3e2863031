"""A training run: a folder of checkpoints, and the steps that fill it and make a bundle of it."""

import hashlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import nn

from models.bundle import read_bundle
from models.bundle.manifest import FORMAT, Classifier, Manifest, Pool, PoolPurifier
from models.bundle.writer import write_manifest, write_weights
from models.classifiers.normalization import Normalized
from models.purifier import Purifier
from trainer.accuracy import Accuracy, measure
from trainer.classifier import ClassifierTrainer
from trainer.images import LabeledImages
from trainer.pool import PurifierTrainer
from trainer.recipe import NetworkRecipe, Recipe

Report = Callable[[str], None]
ACCURACY_DRAWS = 5
ACCURACY_GRIDS = (1, 2, 3)


class RunError(Exception):
    """A step cannot be taken; the message says what has to come before."""


@dataclass(frozen=True)
class Run:
    """One recipe, one folder of checkpoints; each step goes on where an earlier try of it stopped.

    Attributes:
        recipe: what is made.
        folder: where the checkpoints lie.
        device: where the training runs.
        report: told, a line at a time, how far it is.
    """

    recipe: Recipe
    folder: Path
    device: torch.device
    report: Report

    def train_classifier(self, data: LabeledImages) -> None:
        """Trains the classifier that is served."""
        self._train_network("classifier", self.recipe.classifier, data)

    def train_pool(self, data: LabeledImages) -> None:
        """Trains the surrogate and, against it, the purifiers of every attack."""
        surrogate = self._train_network("surrogate", self.recipe.surrogate, data)
        for number, attack in enumerate(self.recipe.pool.training.attacks):
            trainer = PurifierTrainer(
                self.recipe.pool.training, attack, surrogate, data, self.device, self.recipe.pool.seed + number
            )

            def report(step: int, losses: dict[str, float], attack: str = attack) -> None:
                told = ", ".join(f"{name} {255 * loss:.3f}" for name, loss in losses.items())
                self.report(f"{attack}: step {step} of {self.recipe.pool.training.steps}, L1 of 255: {told}")

            trainer.run(self._checkpoint(f"pool-{attack}"), report)

    def write_bundle(self, output: Path, train: LabeledImages, test: LabeledImages) -> Accuracy:
        """Writes what was trained as a bundle, measures it on `test`, and adds the figures to its manifest.

        Raises:
            RunError: the classifier or the pool is not trained yet.
        """
        manifest = Manifest(
            format=FORMAT,
            name=self.recipe.name,
            version=datetime.now(UTC).strftime("%Y%m%d.%H%M%S"),
            labels=train.classes,
            preprocessing=self.recipe.preprocessing,
            classifier=self._write_classifier(output, len(train.classes)),
            pool=self._write_pool(output),
            provenance=self._provenance(train),
        )
        write_manifest(output, manifest)
        accuracy = measure(read_bundle(output), test, self.device, ACCURACY_GRIDS, ACCURACY_DRAWS)
        told: dict[str, JsonValue] = {**manifest.provenance, "accuracy": accuracy.model_dump(mode="json")}
        write_manifest(output, manifest.model_copy(update={"provenance": told}))
        return accuracy

    def _train_network(self, name: str, recipe: NetworkRecipe, data: LabeledImages) -> nn.Module:
        network = self._network(recipe, len(data.classes))
        trainer = ClassifierTrainer(network, recipe.training, data, self.device, recipe.seed)
        epochs = len(recipe.training.resolutions())
        trainer.run(
            self._checkpoint(name),
            lambda epoch, loss: self.report(f"{name}: epoch {epoch} of {epochs}, loss {loss:.4f}"),
        )
        return network

    def _network(self, recipe: NetworkRecipe, classes: int) -> Normalized:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network = recipe.architecture.build(classes)
        return Normalized(network, self.recipe.normalization.mean, self.recipe.normalization.std)

    def _write_classifier(self, output: Path, classes: int) -> Classifier:
        network = self._network(self.recipe.classifier, classes)
        network.load_state_dict(self._state("classifier")["network"])
        return Classifier(
            architecture=self.recipe.classifier.architecture,
            classes=classes,
            normalization=self.recipe.normalization,
            weights=write_weights(output, "classifier", network.network),
        )

    def _write_pool(self, output: Path) -> Pool:
        recipe = self.recipe.pool
        entries = []
        for attack in recipe.training.attacks:
            purifiers = nn.ModuleDict({name: Purifier(config) for name, config in recipe.training.purifiers.items()})
            purifiers.load_state_dict(self._state(f"pool-{attack}")["purifiers"])
            for name, config in recipe.training.purifiers.items():
                full_name = f"{attack}-{name}"
                weights = write_weights(output, full_name, purifiers[name])
                entries.append(PoolPurifier(name=full_name, attack=attack, architecture=config, weights=weights))
        return Pool(grid=recipe.grid, halo=recipe.halo, purifiers=tuple(entries))

    def _provenance(self, train: LabeledImages) -> dict[str, JsonValue]:
        return {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "recipe": self.recipe.model_dump(mode="json"),
            "training_images": len(train),
            "training_data_sha256": fingerprint(train),
            "purigate": version("purigate"),
            "torch": torch.__version__,
            "commit": _commit(),
        }

    def _checkpoint(self, name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{name}.ckpt"

    def _state(self, name: str) -> dict[str, dict[str, torch.Tensor]]:
        path = self._checkpoint(name)
        if not path.exists():
            raise RunError(f"{path}: not trained yet")
        state: dict[str, dict[str, torch.Tensor]] = torch.load(path, map_location="cpu", weights_only=True)
        return state


def fingerprint(data: LabeledImages) -> str:
    """SHA-256 of the pixels and labels of a data set, in order."""
    digest = hashlib.sha256(data.images.numpy().data)
    digest.update(data.labels.numpy().data)
    return digest.hexdigest()


def _commit() -> str | None:
    """The commit that this code is checked out at, if it is a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return answer.stdout.strip() or None
