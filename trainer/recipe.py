"""A recipe: everything that decides what a training run produces."""

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError, model_validator

from models.bundle.manifest import Name
from models.patches import Axis
from models.preprocessing import Preprocessing
from trainer.data import DataRecipe
from trainer.errors import TrainerError
from trainer.networks import NetworkRecipe
from trainer.pool import PoolTraining
from trainer.selection import Selection


class RecipeError(TrainerError):
    """A recipe cannot be used; the message says where it is wrong."""


class PoolRecipe(BaseModel):
    """The pool, how it is trained and how it is served.

    Attributes:
        seed: of the purifiers' first weights and of their batches; each attack draws for itself.
        grid: patches along each dimension of a served image.
        halo: pixels around a patch that a purifier sees and whose output is thrown away.
        selection: which of the trained purifiers make the pool; all of them where there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: PoolTraining
    seed: int = 0
    grid: PositiveInt
    halo: NonNegativeInt
    selection: Selection | None = None

    @model_validator(mode="after")
    def _enough_candidates(self) -> Self:
        trained = len(self.training.attacks) * len(self.training.purifiers)
        if self.selection and self.selection.keep > trained:
            raise ValueError(f"selection.keep is {self.selection.keep}, but only {trained} purifiers are trained")
        return self


class Recipe(BaseModel):
    """A whole run.

    Attributes:
        data: the images.
        classifier: the network that is served.
        surrogate: the undefended network that the purifiers' adversarial images are made against; better another one
            than the classifier, so that the pool does not learn the weak spots of one network by heart. The classifier
            itself where there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    data: DataRecipe
    preprocessing: Preprocessing
    classifier: NetworkRecipe
    surrogate: NetworkRecipe | None = None
    pool: PoolRecipe

    @property
    def pool_training(self) -> PoolTraining:
        """How the pool is trained, with the side of the crops told."""
        if self.pool.training.crop:
            return self.pool.training
        window = Axis.divide(self.preprocessing.height, self.pool.grid, self.pool.halo).window
        return self.pool.training.model_copy(update={"crop": window})

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.preprocessing.height != self.preprocessing.width:
            raise ValueError("preprocessing: the trainer makes square inputs only; give height and width one value")
        side = self.preprocessing.height
        for name, value in (("pool.grid", self.pool.grid), ("pool.training.crop", self.pool.training.crop)):
            if value and value > side:
                raise ValueError(f"{name} is {value}, but images have {side} pixels a side")
        for name, network in (("classifier", self.classifier), ("surrogate", self.surrogate)):
            if network and network.training and network.training.padding >= side:
                raise ValueError(f"{name}.training.padding is not below the {side} pixels a side of an image")
        return self


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with Purigate, by name."""
    folder = Path(str(files("trainer"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_recipe(name_or_path: str, settings: Sequence[str] = ()) -> Recipe:
    """Reads a shipped recipe by its name, or any by its path.

    Args:
        name_or_path: such as `cifar10-resnet18` or `mine.toml`.
        settings: each `key.key=value`, the value in TOML; they go over what the recipe says. Without a value, the key
            is taken out of it.

    Raises:
        RecipeError: there is none, or it is not a valid one.
    """
    path = shipped_recipes().get(name_or_path, Path(name_or_path))
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(shipped_recipes())
        raise RecipeError(f"{path}: {error.strerror}; shipped recipes are {known}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    for setting in settings:
        _override(content, setting)
    return check_recipe(content, str(path))


def check_recipe(content: dict[str, Any], where: str) -> Recipe:
    """A recipe out of what its file holds.

    Raises:
        RecipeError: it is not a valid one; every fault is told.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}".lstrip(": ") for one in error.errors()]
        raise RecipeError(f"{where}: {'; '.join(lines)}") from error


def _override(content: dict[str, Any], setting: str) -> None:
    name, equals, text = setting.partition("=")
    if not equals or not all(name.split(".")):
        raise RecipeError(f"--set {setting}: not of the form key.key=value")
    *sections, key = name.split(".")
    for section in sections:
        if not text and section not in content:
            return  # nothing to take out
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise RecipeError(f"--set {setting}: {section} is not a section")
    if text:
        content[key] = _value(text)
    else:
        content.pop(key, None)


def _value(text: str) -> Any:
    """A value in TOML; what is none is a string, so that a path needs no quotes inside the shell's."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
