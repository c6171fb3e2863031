"""A recipe: everything that decides what a training run produces, but for the images."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from models.bundle.manifest import Name, Normalization
from models.classifiers import ResNetConfig, WideResNetConfig
from models.preprocessing import Preprocessing
from trainer.classifier import ClassifierTraining
from trainer.errors import TrainerError
from trainer.pool import PoolTraining


class RecipeError(TrainerError):
    """A recipe cannot be used; the message says where it is wrong."""


class NetworkRecipe(BaseModel):
    """A network that is trained from nothing.

    Attributes:
        seed: of its first weights, the order of the images and their augmentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Annotated[ResNetConfig | WideResNetConfig, Field(discriminator="kind")]
    training: ClassifierTraining
    seed: int


class PoolRecipe(BaseModel):
    """The pool, how it is trained and how it is served.

    Attributes:
        seed: of the purifiers of the first attack; each further attack counts one up.
        grid: patches along each dimension of a served image.
        halo: pixels around a patch that a purifier sees and whose output is thrown away.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: PoolTraining
    seed: int
    grid: PositiveInt
    halo: NonNegativeInt


class Recipe(BaseModel):
    """A whole run.

    Attributes:
        classifier: the network that is served.
        surrogate: the undefended network that the purifiers' adversarial images are made against; another one than the
            classifier, so that the pool does not learn the weak spots of one network by heart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    preprocessing: Preprocessing
    normalization: Normalization
    classifier: NetworkRecipe
    surrogate: NetworkRecipe
    pool: PoolRecipe

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        side = min(self.preprocessing.height, self.preprocessing.width)
        for name, value in (("pool.grid", self.pool.grid), ("pool.training.crop", self.pool.training.crop)):
            if value > side:
                raise ValueError(f"{name} is {value}, but images have {side} pixels a side")
        for name, network in (("classifier", self.classifier), ("surrogate", self.surrogate)):
            if network.training.padding >= side:
                raise ValueError(f"{name}.training.padding is not below the {side} pixels a side of an image")
        if self.preprocessing.height != self.preprocessing.width:
            raise ValueError("preprocessing: the trainer makes square inputs only; give height and width one value")
        return self


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with Purigate, by name."""
    folder = Path(str(files("trainer"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_recipe(name_or_path: str) -> Recipe:
    """Reads a shipped recipe by its name, or any by its path.

    Raises:
        RecipeError: there is none, or it is not a valid one.
    """
    path = shipped_recipes().get(name_or_path, Path(name_or_path))
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        known = ", ".join(shipped_recipes())
        raise RecipeError(f"{path}: {error.strerror}; shipped recipes are {known}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise RecipeError(f"{path}: {'; '.join(lines)}") from error
