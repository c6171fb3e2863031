"""A training run: a folder of checkpoints, and the steps that fill it and make a bundle of it."""

import hashlib
import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, JsonValue
from torch import nn

from models.bundle import read_bundle
from models.bundle.manifest import FORMAT, Classifier, Manifest, Pool, PoolPurifier
from models.bundle.writer import write_manifest, write_weights
from models.classifiers.normalization import Normalized
from models.purifier import Purifier
from trainer.accuracy import Accuracy, attack_images, measure
from trainer.adversary import Attack
from trainer.classifier import ClassifierTrainer
from trainer.errors import RunError
from trainer.images import LabeledImages
from trainer.pool import PurifierTrainer
from trainer.recipe import NetworkRecipe, Recipe

Report = Callable[[str], None]
ACCURACY_DRAWS = 5
ACCURACY_GRIDS = (1, 2, 3)
ATTACKED_IMAGES = 1000
TRANSFERRED_ATTACK = Attack(kind="pgd", epsilon=(8, 8), steps=(10, 10), step_size=(0.25, 0.25))


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
        """Trains the classifier that is served.

        Raises:
            RunError: the folder has a classifier of other images or another recipe.
            TrainerError: the training fails.
        """
        self._train_network("classifier", self.recipe.classifier, data)

    def train_pool(self, data: LabeledImages) -> None:
        """Trains the surrogate and, against it, the purifiers of every attack.

        Raises:
            RunError: the folder has a pool of other images or another recipe.
            TrainerError: the training fails.
        """
        surrogate = self._train_network("surrogate", self.recipe.surrogate, data)
        self._claim("pool", [self.recipe.surrogate, self.recipe.pool], data)
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
            RunError: the classifier or the pool is not trained to its end, or the two sets have different classes.
        """
        if train.classes != test.classes:
            raise RunError(f"the training images are of {train.classes}, the test images of {test.classes}")
        self._require_own("classifier", [self.recipe.classifier], train)
        self._require_own("surrogate", [self.recipe.surrogate], train)
        self._require_own("pool", [self.recipe.surrogate, self.recipe.pool], train)
        classes = len(train.classes)
        classifier = self._trained_network("classifier", self.recipe.classifier, classes)
        surrogate = self._trained_network("surrogate", self.recipe.surrogate, classes)
        purifiers = self._trained_purifiers()
        manifest = Manifest(
            format=FORMAT,
            name=self.recipe.name,
            version=datetime.now(UTC).strftime("%Y%m%d.%H%M%S"),
            labels=train.classes,
            preprocessing=self.recipe.preprocessing,
            classifier=self._write_classifier(output, classifier.network, classes),
            pool=self._write_pool(output, purifiers),
            provenance=self._provenance(train, test),
        )
        write_manifest(output, manifest)
        grids = tuple(sorted({*ACCURACY_GRIDS, self.recipe.pool.grid}))
        attacked = attack_images(surrogate, test.spread(ATTACKED_IMAGES), TRANSFERRED_ATTACK, self.device)
        accuracy = measure(read_bundle(output), test, attacked, self.device, grids, ACCURACY_DRAWS)
        told: dict[str, JsonValue] = {**manifest.provenance, "accuracy": accuracy.model_dump(mode="json")}
        write_manifest(output, manifest.model_copy(update={"provenance": told}))
        return accuracy

    def _train_network(self, name: str, recipe: NetworkRecipe, data: LabeledImages) -> nn.Module:
        network = self._network(recipe, len(data.classes))
        trainer = ClassifierTrainer(network, recipe.training, data, self.device, recipe.seed)
        self._claim(name, [recipe], data)
        epochs = len(recipe.training.resolutions())

        def report(epoch: int, loss: float) -> None:
            self.report(f"{name}: epoch {epoch} of {epochs}, loss {loss:.4f}")

        trainer.run(self._checkpoint(name), report)
        return network

    def _network(self, recipe: NetworkRecipe, classes: int) -> Normalized:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network = recipe.architecture.build(classes)
        return Normalized(network, self.recipe.normalization.mean, self.recipe.normalization.std)

    def _trained_network(self, name: str, recipe: NetworkRecipe, classes: int) -> Normalized:
        network = self._network(recipe, classes)
        network.load_state_dict(self._state(name, "epochs_done", len(recipe.training.resolutions()))["network"])
        return network

    def _trained_purifiers(self) -> dict[str, nn.ModuleDict]:
        """By attack, then by architecture."""
        training = self.recipe.pool.training
        trained = {}
        for attack in training.attacks:
            purifiers = nn.ModuleDict({name: Purifier(config) for name, config in training.purifiers.items()})
            purifiers.load_state_dict(self._state(f"pool-{attack}", "steps_done", training.steps)["purifiers"])
            trained[attack] = purifiers
        return trained

    def _write_classifier(self, output: Path, network: nn.Module, classes: int) -> Classifier:
        return Classifier(
            architecture=self.recipe.classifier.architecture,
            classes=classes,
            normalization=self.recipe.normalization,
            weights=write_weights(output, "classifier", network),
        )

    def _write_pool(self, output: Path, trained: dict[str, nn.ModuleDict]) -> Pool:
        entries = []
        for attack, purifiers in trained.items():
            for name, config in self.recipe.pool.training.purifiers.items():
                full_name = f"{attack}-{name}"
                weights = write_weights(output, full_name, purifiers[name])
                entries.append(PoolPurifier(name=full_name, attack=attack, architecture=config, weights=weights))
        return Pool(grid=self.recipe.pool.grid, halo=self.recipe.pool.halo, purifiers=tuple(entries))

    def _provenance(self, train: LabeledImages, test: LabeledImages) -> dict[str, JsonValue]:
        return {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "recipe": self.recipe.model_dump(mode="json"),
            "training_images": len(train),
            "training_data_sha256": fingerprint(train),
            "test_data_sha256": fingerprint(test),
            "purigate": version("purigate"),
            "torch": torch.__version__,
            "commit": _commit(),
        }

    def _checkpoint(self, name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{name}.ckpt"

    def _claim(self, name: str, recipes: Sequence[BaseModel], data: LabeledImages) -> None:
        """Keeps checkpoints of one recipe and one set of images apart from those of another."""
        path = self._checkpoint(name).with_suffix(".json")
        if not path.exists():
            path.write_text(_origin(recipes, data))
        self._require_own(name, recipes, data)

    def _require_own(self, name: str, recipes: Sequence[BaseModel], data: LabeledImages) -> None:
        path = self._checkpoint(name).with_suffix(".json")
        if not path.exists():
            raise RunError(f"{path.with_suffix('.ckpt')}: not trained yet")
        if path.read_text() != _origin(recipes, data):
            raise RunError(f"{self.folder} holds a {name} of other images or of another recipe; name another folder")

    def _state(self, name: str, counter: str, expected: int) -> dict[str, dict[str, torch.Tensor]]:
        """A checkpoint that was trained to its end."""
        path = self._checkpoint(name)
        if not path.exists():
            raise RunError(f"{path}: not trained yet")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state[counter] != expected:
            raise RunError(f"{path}: {counter} is {state[counter]} of {expected}; finish the training first")
        return state


def fingerprint(data: LabeledImages) -> str:
    """SHA-256 of the pixels and labels of a data set, in order."""
    digest = hashlib.sha256(data.images.numpy().data)
    digest.update(data.labels.numpy().data)
    return digest.hexdigest()


def _origin(recipes: Sequence[BaseModel], data: LabeledImages) -> str:
    """What decides the weights of a checkpoint."""
    return json.dumps([fingerprint(data), *(recipe.model_dump(mode="json") for recipe in recipes)], indent=2)


def _commit() -> str | None:
    """The commit of the code that bundles, marked if it was changed since; if it is a checkout and git is there."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return None
    return answer.stdout.strip() or None
