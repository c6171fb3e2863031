"""A training run: a folder of checkpoints, and the steps that fill it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lightning_fabric import Fabric
from pydantic import JsonValue
from torch import nn

from models.purifier import Purifier
from trainer.checkpoint import Checkpoint, State
from trainer.classifier import ClassifierTask, require_batch
from trainer.images import LabeledImages
from trainer.loop import Loop
from trainer.networks import NetworkRecipe, frozen, require_gradients
from trainer.pool import PurifierTask, Victims, new_purifiers, require_shares
from trainer.recipe import Recipe
from trainer.sampling import Epochs
from trainer.start import start_origin

Tell = Callable[[str], None]
CLASSIFIER = "classifier"
SURROGATE = "surrogate"


@dataclass(frozen=True)
class Run:
    """One recipe, one folder of checkpoints; each step goes on where an earlier try of it stopped.

    Attributes:
        recipe: what is made.
        folder: where the checkpoints lie.
        loop: where and how the training runs.
        tell: told, a line at a time, what is done without training.
    """

    recipe: Recipe
    folder: Path
    loop: Loop
    tell: Tell

    @property
    def fabric(self) -> Fabric:
        """Where the training runs."""
        return self.loop.fabric

    def check(self, data: LabeledImages, *, pool: bool = True) -> None:
        """Looks at everything that could stop the run later: batches, files of networks, checkpoints that are there.

        Args:
            data: the training images.
            pool: whether more than the classifier is to be trained or read.

        Raises:
            TrainerError: a batch cannot be made or shared, a file cannot be used, or the folder holds checkpoints of
                other images or of another recipe.
        """
        for name, recipe in self._recipes().items():
            if pool or name == CLASSIFIER:
                self._check_network(name, recipe, data)
        if pool:
            require_shares(self.recipe.pool_training, self.fabric)
            for attack in self.recipe.pool_training.attacks:
                new_purifiers(self.recipe.pool_training, attack, self.recipe.pool.seed)
                self._pool_checkpoint(attack, data).read()

    def _check_network(self, name: str, recipe: NetworkRecipe, data: LabeledImages) -> None:
        if recipe.training:
            require_batch(name, recipe.training, data, self.fabric)
            recipe.rehearse(len(data.classes), self.recipe.preprocessing)
            self._checkpoint(name, recipe, data).read()
            return
        training = self.recipe.pool_training
        network = recipe.read(len(data.classes), self.recipe.preprocessing, batches=training.batches())
        guides = name == CLASSIFIER and training.guidance is not None
        if guides or name == SURROGATE or self.recipe.surrogate is None:
            require_gradients(network, self.recipe.preprocessing, name)

    def train_classifier(self, data: LabeledImages) -> None:
        """Trains the classifier that is served; a user's own is only read.

        Raises:
            TrainerError: the training fails, or the folder holds one of other images or of another recipe.
        """
        self._network(CLASSIFIER, self.recipe.classifier, data)

    def train_pool(self, data: LabeledImages) -> None:
        """Trains the surrogate, if it has to be trained, and against it the purifiers of every attack.

        Raises:
            TrainerError: the training fails, the classifier is needed and not there yet, or the folder holds a pool of
                other images or of another recipe.
        """
        guide = self._guide(data)  # first: it may not be there, and a surrogate takes hours
        victims = Victims(self.train_surrogate(data), guide)
        training = self.recipe.pool_training
        if not training.steps:
            self.tell(f"pool: taken from {training.start}")
            return
        for attack in training.attacks:
            task = PurifierTask(training, attack, victims, data, self.fabric, self.recipe.pool.seed)
            self.loop.train(task, self._pool_checkpoint(attack, data))

    def train_surrogate(self, data: LabeledImages) -> nn.Module:
        """The network that adversarial images are made against, trained if need be; frozen."""
        if self.recipe.surrogate is None:
            return self.classifier(data)
        return self._network(SURROGATE, self.recipe.surrogate, data)

    def classifier(self, data: LabeledImages) -> nn.Module:
        """The classifier that is served, frozen.

        Raises:
            TrainerError: it was not trained to its end, or its file cannot be used.
        """
        return self._finished_network(CLASSIFIER, self.recipe.classifier, data)

    def surrogate(self, data: LabeledImages) -> nn.Module:
        """The network that adversarial images are made against, frozen.

        Raises:
            TrainerError: it was not trained to its end, or its file cannot be used.
        """
        if self.recipe.surrogate is None:
            return self.classifier(data)
        return self._finished_network(SURROGATE, self.recipe.surrogate, data)

    def purifiers(self, data: LabeledImages) -> dict[str, tuple[str, Purifier]]:
        """All trained purifiers by name, each with the name of its attack; frozen.

        Raises:
            TrainerError: one was not trained to its end.
        """
        training = self.recipe.pool_training
        trained = {}
        for attack in training.attacks:
            purifiers = self._finished_purifiers(attack, data)
            frozen(purifiers)
            for name, purifier in purifiers.items():
                assert isinstance(purifier, Purifier)
                trained[f"{attack}-{name}"] = (attack, purifier)
        return trained

    def _finished_purifiers(self, attack: str, data: LabeledImages) -> nn.ModuleDict:
        """Those of one attack after their last step; where there are no steps, as they start."""
        training = self.recipe.pool_training
        if not training.steps:
            return new_purifiers(training, attack, self.recipe.pool.seed)
        state = self._pool_checkpoint(attack, data).finished(training.steps)
        purifiers = nn.ModuleDict({name: Purifier(config) for name, config in training.purifiers.items()})
        purifiers.load_state_dict(state.parts["purifiers"])
        return purifiers

    def history(self, data: LabeledImages) -> dict[str, JsonValue]:
        """By training, the sessions that made it."""
        states = {name: checkpoint.read() or State(0, {}) for name, checkpoint in self._checkpoints(data).items()}
        return {name: list(state.history) for name, state in states.items()}

    def _guide(self, data: LabeledImages) -> nn.Module | None:
        return self.classifier(data) if self.recipe.pool_training.guidance else None

    def _network(self, name: str, recipe: NetworkRecipe, data: LabeledImages) -> nn.Module:
        """Trains or reads a network; frozen."""
        if recipe.training is None:
            self.tell(f"{name}: taken from {recipe.weights}")
            return recipe.read(len(data.classes), self.recipe.preprocessing)
        network = recipe.begin(len(data.classes), self.recipe.preprocessing)
        task = ClassifierTask(name, network, recipe.training, data, self.fabric, recipe.seed)
        self.loop.train(task, self._checkpoint(name, recipe, data))
        return self._finished_network(name, recipe, data)

    def _finished_network(self, name: str, recipe: NetworkRecipe, data: LabeledImages) -> nn.Module:
        if recipe.training is None:
            return recipe.read(len(data.classes), self.recipe.preprocessing)
        steps = len(recipe.training.resolutions()) * Epochs(len(data), recipe.training.batch_size, recipe.seed).steps
        network = recipe.build(len(data.classes))
        network.load_state_dict(self._checkpoint(name, recipe, data).finished(steps).parts["network"])
        return frozen(network)

    def _recipes(self) -> dict[str, NetworkRecipe]:
        """By name, the networks of the recipe."""
        surrogate = self.recipe.surrogate
        return {CLASSIFIER: self.recipe.classifier, **({SURROGATE: surrogate} if surrogate else {})}

    def _checkpoints(self, data: LabeledImages) -> dict[str, Checkpoint]:
        """By name, all that this run trains."""
        networks = {name: self._checkpoint(name, one, data) for name, one in self._recipes().items() if one.training}
        return networks | {
            f"pool-{name}": self._pool_checkpoint(name, data) for name in self.recipe.pool_training.attacks
        }

    def _checkpoint(self, name: str, recipe: NetworkRecipe, data: LabeledImages) -> Checkpoint:
        return Checkpoint(self.folder / f"{name}.ckpt", {"images": data.fingerprint, name: recipe.origin()})

    def _pool_checkpoint(self, attack: str, data: LabeledImages) -> Checkpoint:
        """Of one attack: the others may change without it."""
        training = self.recipe.pool_training
        surrogate = self.recipe.surrogate or self.recipe.classifier
        guide = self.recipe.classifier.origin() if training.guidance else None
        said = training.model_dump(mode="json", exclude={"start"})
        origin = {
            "images": data.fingerprint,
            "surrogate": surrogate.origin(),
            "guide": guide,
            **({"start": start_origin(training.start, attack)} if training.start else {}),
            "pool": {**said, "attacks": said["attacks"][attack], "seed": self.recipe.pool.seed},
        }
        return Checkpoint(self.folder / f"pool-{attack}.ckpt", origin)
