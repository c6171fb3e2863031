"""Results as files: one JSON for each cell and range of images; whatever is told is computed from them."""

import hashlib
from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from evaluation import recheck
from evaluation.attacks import AnyAttack, Attack
from evaluation.ball import Ball
from evaluation.draws import draws_differ
from evaluation.errors import EvaluationError
from evaluation.provenance import Provenance
from evaluation.trial import Stopping
from evaluation.verdict import Outcome

DIGEST_LENGTH = 8


class Section(BaseModel):
    """A part of a record; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Served(Section):
    """What is attacked.

    Attributes:
        bundle: its name; of a gateway, which does not tell its networks, the version too.
        networks_sha256: of what the manifest says of the networks that answers come from, weights and all; none of a
            gateway. The version of the bundle is no part of it: a new pool leaves what was measured without one.
        defense: the name of what stands before the classifier.
        grid: patches along each dimension; none where the defense has no patches, or a gateway does not tell.
        purifiers: of the pool that draws choose from; empty where the defense has none.
        precision: of the arithmetic.
        over_http: whether a running gateway was attacked.
        sticky: whether its draws depend on the image alone.
    """

    bundle: str
    networks_sha256: str | None
    defense: str
    grid: PositiveInt | None
    purifiers: tuple[str, ...]
    precision: str
    over_http: bool = False
    sticky: bool = False

    @model_serializer(mode="wrap")
    def _as_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out that draws are not sticky, so that records of before this was noted keep their names."""
        return {name: value for name, value in plain(self).items() if name != "sticky" or value}

    @property
    def random(self) -> bool:
        """Whether the same image may get another answer."""
        return draws_differ(self.defense, self.purifiers) and not self.sticky


def code_revision(attack: Attack, served: Served) -> int:
    """Of the code that attacks a target: that of the attack, and where draws differ that of asking again, too.

    Draws from a single purifier, which are all the same, were taken for random before: they count one more.
    """
    if served.random:
        return attack.revision + recheck.REVISION
    return attack.revision + (len(served.purifiers) == 1)


def _revision(told: Mapping[str, Any]) -> int:
    """Of a cell that is made now; of one that is wrong anyway, any."""
    return code_revision(told["attack"], told["served"]) if {"attack", "served"} <= told.keys() else 1


class Cell(Section):
    """Everything that decides a result, but for the images.

    Attributes:
        queries: the budget of each image.
        seed: of the attack's choices and of the defense's draws.
        revision: of the code, as `code_revision` has it; in a record that does not tell, 1.
    """

    served: Served
    attack: AnyAttack
    ball: Ball
    queries: PositiveInt
    stopping: Stopping
    seed: int
    revision: PositiveInt = Field(default_factory=_revision)

    @model_serializer(mode="wrap")
    def _as_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out the first revision, so that records of before there were any keep their names."""
        return {name: value for name, value in plain(self).items() if name != "revision" or value != 1}

    def digest(self) -> str:
        """A short name of this cell, another for any other."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:DIGEST_LENGTH]


class Record(Section):
    """The results of one cell on a range of images.

    Attributes:
        bundle_version: that was attacked, so that it can be found again.
        begin: the place of the first image in the sample.
        data_sha256: of the pixels and labels of these images.
        tree_sha256: of the names and sizes of all files of the tree that they are some of; none in older records.
        outcomes: one an image.
    """

    format: Literal[2] = 2
    cell: Cell
    bundle_version: str
    begin: int
    data_sha256: str
    tree_sha256: str | None = None
    outcomes: tuple[Outcome, ...]
    provenance: Provenance

    @model_validator(mode="before")
    @classmethod
    def _first_revision(cls, told: Any) -> Any:
        """What is read and tells no revision is of the first; what is made now has that of the code."""
        if isinstance(told, dict) and isinstance(told.get("cell"), dict):
            return {**told, "cell": {"revision": 1, **told["cell"]}}
        return told

    @property
    def name(self) -> str:
        """Of its file."""
        return record_path(Path(), self.cell, self.begin, len(self.outcomes), self.data_sha256).name

    @property
    def indices(self) -> tuple[int, ...]:
        """Of its images in the tree."""
        return tuple(outcome.index for outcome in self.outcomes)


def record_path(folder: Path, cell: Cell, begin: int, count: int, data_sha256: str) -> Path:
    """Where the record of `count` images from `begin` lies; other images have another place."""
    what = f"{cell.served.defense}_{cell.attack.kind}_{cell.queries}_{cell.digest()}"
    return folder / f"{what}_{begin}-{begin + count}_{data_sha256[:DIGEST_LENGTH]}.json"


def write_record(folder: Path, record: Record) -> Path:
    """Writes a record so that it is there as a whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = record_path(folder, record.cell, record.begin, len(record.outcomes), record.data_sha256)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(record.model_dump_json(indent=1) + "\n")
    partial.replace(path)
    return path


def read_record(path: Path) -> Record:
    """Reads one record.

    Raises:
        EvaluationError: it is not one.
    """
    try:
        return Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise EvaluationError(f"{path}: not a record: {error}") from error


def read_records(folders: Iterable[Path]) -> list[Record]:
    """All records of some folders.

    Raises:
        EvaluationError: a file is no record, or a folder is not there.
    """
    folders = list(folders)
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise EvaluationError(f"there is no folder {', '.join(missing)}")
    return [read_record(path) for folder in folders for path in sorted(folder.glob("*.json"))]


Merged = Mapping[Cell, tuple[Outcome, ...]]
"""The outcomes of each cell."""


def merge(records: Iterable[Record]) -> dict[Cell, tuple[Outcome, ...]]:
    """The outcomes of each cell, from all its records, each image once; of its revisions, the newest alone.

    The order of the records does not matter.

    Raises:
        EvaluationError: two records of one cell, or of one bundle in the same places, are of images of two trees.
    """
    parts: dict[Cell, list[Record]] = {}
    records = sorted(records, key=lambda one: (one.begin, len(one.outcomes), one.data_sha256))
    _require_same_images(records)
    for record in records:
        parts.setdefault(record.cell, []).append(record)
    merged = {}
    for cell in _newest(parts):
        _require_one_tree(parts[cell])
        outcomes = {outcome.index: outcome for record in parts[cell] for outcome in record.outcomes}
        merged[cell] = tuple(outcomes[index] for index in sorted(outcomes))
    return merged


def _newest(cells: Iterable[Cell]) -> list[Cell]:
    """Without those that are there in a newer revision, too."""
    newest: dict[Cell, Cell] = {}
    for cell in cells:
        key = cell.model_copy(update={"revision": 1})
        newest[key] = max(newest.get(key, cell), cell, key=lambda one: one.revision)
    return list(newest.values())


def _require_same_images(records: Iterable[Record]) -> None:
    """Refuses what would stand in one row of a table, under one clean accuracy, and is of other images."""
    seen: dict[tuple[str, int, tuple[int, ...]], Record] = {}
    for record in records:
        first = seen.setdefault((record.cell.served.bundle, record.begin, record.indices), record)
        if record.data_sha256 != first.data_sha256:
            names = f"{first.name} and {record.name}"
            raise EvaluationError(f"{names} are of the same places, but not of images of one tree; tell them apart")


def _require_one_tree(records: Iterable[Record]) -> None:
    for one, other in combinations(records, 2):
        if not _of_one_tree(one, other):
            names = " and ".join(f"{each.name} (tree {(each.tree_sha256 or 'unknown')[:8]})" for each in (one, other))
            raise EvaluationError(f"{names} are of one cell, but not of images of one tree; tell them apart")


def _of_one_tree(one: Record, other: Record) -> bool:
    """Whether two records of one cell can be told to be of images of one tree.

    Older records do not tell their tree. Two parts without an image in common are then taken for parts of one; two
    that overlap must be of the same images, by their hash.
    """
    first, second = (range(each.begin, each.begin + len(each.outcomes)) for each in (one, other))
    if first == second and (one.data_sha256, one.indices) != (other.data_sha256, other.indices):
        return False
    if one.tree_sha256 and other.tree_sha256:
        return one.tree_sha256 == other.tree_sha256
    return first == second or not set(one.indices) & set(other.indices)
