"""The manifest of a bundle, `bundle.json`: what one deployment serves and where it came from."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from models.bundle.errors import (
    FormatTooNewError,
    ManifestInvalidError,
    ManifestMissingError,
    UnknownArchitectureError,
)
from models.classifiers import ClassifierConfig
from models.preprocessing import Preprocessing
from models.purifier import PurifierConfig

MANIFEST_FILE = "bundle.json"
FORMAT: Literal[1] = 1
TORCHVISION_NAME = ("torchvision", "name")
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
"""A plain name without path separators, fit for a file, a metric label or a header."""


Deviation = Annotated[FiniteFloat, Field(gt=0)]


class Section(BaseModel):
    """A part of the manifest; unknown keys are errors, so that a typo cannot pass for a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class WeightsFile(Section):
    """A file of the bundle and what it must be to the last bit."""

    file: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: NonNegativeInt


class Normalization(Section):
    """What is subtracted from, then divided out of, each channel of an image in [0, 1]."""

    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    std: tuple[Deviation, Deviation, Deviation]


class Classifier(Section):
    """The classifier: its architecture, how many classes it tells apart, and its weights.

    Attributes:
        normalization: none where the network takes pixels in [0, 1] as they are.
    """

    architecture: ClassifierConfig
    classes: PositiveInt
    normalization: Normalization | None = None
    weights: WeightsFile


class PoolPurifier(Section):
    """One purifier of the pool.

    Attributes:
        attack: the attack whose images it was trained on.
    """

    name: Name
    attack: str
    architecture: PurifierConfig
    weights: WeightsFile


class Pool(Section):
    """The purifiers and the patch grid that they are served with.

    Attributes:
        grid: patches along each dimension of an image.
        halo: pixels around a patch that a purifier sees and whose output is thrown away.
    """

    grid: PositiveInt
    halo: NonNegativeInt
    purifiers: Annotated[tuple[PoolPurifier, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        twice = repeated(purifier.name for purifier in self.purifiers)
        if twice:
            raise ValueError(f"two purifiers have the same name: {', '.join(twice)}")
        return self


class Manifest(Section):
    """The whole manifest.

    Attributes:
        format: version of this schema.
        name: what the bundle is called in answers and metrics.
        version: of this bundle; differs whenever its weights do.
        labels: names of the classes, by index.
        provenance: where all that came from, as the trainer tells it: recipe, data, seeds, versions, accuracy.
    """

    format: Literal[1]
    name: Name
    version: Name
    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    preprocessing: Preprocessing
    classifier: Classifier
    pool: Pool
    provenance: dict[str, JsonValue] = {}

    @property
    def networks(self) -> tuple[Classifier, Pool, Preprocessing]:
        """Which networks these are, to the last bit; bundles with the same may differ in their names and labels."""
        return self.classifier, self.pool, self.preprocessing

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        twice = repeated(labels)
        if twice:
            raise ValueError(f"two classes have the same label: {', '.join(twice)}")
        return labels

    @model_validator(mode="after")
    def _grid_fits(self) -> Self:
        if self.pool.grid > min(self.preprocessing.height, self.preprocessing.width):
            raise ValueError(f"an image has fewer pixels than a {self.pool.grid}x{self.pool.grid} grid has patches")
        return self


def repeated(names: Iterable[str]) -> list[str]:
    """The names that occur more than once, sorted."""
    return sorted(name for name, times in Counter(names).items() if times > 1)


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks `folder/bundle.json`.

    Raises:
        ManifestMissingError, ManifestInvalidError, FormatTooNewError, UnknownArchitectureError: what is wrong with it.
    """
    path = folder / MANIFEST_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ManifestMissingError(f"{path}: no bundle here ({error.strerror})") from error
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise _manifest_error(path, error) from error


def _manifest_error(path: Path, error: ValidationError) -> Exception:
    for problem in error.errors():
        if problem["loc"] == ("format",) and _is_newer(problem["input"]):
            return FormatTooNewError(
                f"{path}: written in format {problem['input']}, this version reads {FORMAT}; upgrade Purigate"
            )
        if problem["type"] == "union_tag_invalid" or problem["loc"][-2:] == TORCHVISION_NAME:
            return UnknownArchitectureError(f"{path}: {_where(problem['loc'])}: {problem['msg']}")
    lines = [f"{_where(problem['loc'])}: {problem['msg']}" for problem in error.errors()]
    return ManifestInvalidError(f"{path}: {'; '.join(lines)}")


def _is_newer(value: Any) -> bool:
    return isinstance(value, int) and value > FORMAT


def _where(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "the manifest"
