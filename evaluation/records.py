"""Results as files: one JSON for each cell and range of images; whatever is told is computed from them."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from evaluation.attacks import AnyAttack
from evaluation.ball import Ball
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
    """

    bundle: str
    networks_sha256: str | None
    defense: str
    grid: PositiveInt | None
    purifiers: tuple[str, ...]
    precision: str
    over_http: bool = False


class Cell(Section):
    """Everything that decides a result, but for the images.

    Attributes:
        queries: the budget of each image.
        seed: of the attack's choices and of the defense's draws.
    """

    served: Served
    attack: AnyAttack
    ball: Ball
    queries: PositiveInt
    stopping: Stopping
    seed: int

    def digest(self) -> str:
        """A short name of this cell, another for any other."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:DIGEST_LENGTH]


class Record(Section):
    """The results of one cell on a range of images.

    Attributes:
        bundle_version: that was attacked, so that it can be found again.
        begin: the place of the first image in the sample.
        data_sha256: of the pixels and labels of these images.
        outcomes: one an image.
    """

    format: Literal[2] = 2
    cell: Cell
    bundle_version: str
    begin: int
    data_sha256: str
    outcomes: tuple[Outcome, ...]
    provenance: Provenance


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
        EvaluationError: a file is no record, or there is none at all.
    """
    records = [read_record(path) for folder in folders for path in sorted(folder.glob("*.json"))]
    if not records:
        raise EvaluationError("there are no records")
    return records


def merge(records: Iterable[Record]) -> dict[Cell, tuple[Outcome, ...]]:
    """The outcomes of each cell, from all its records, each image once.

    An image is known by its place in the data set, so records of two data sets do not belong together.
    """
    merged: dict[Cell, dict[int, Outcome]] = {}
    for record in records:
        merged.setdefault(record.cell, {}).update({outcome.index: outcome for outcome in record.outcomes})
    return {cell: tuple(outcomes[index] for index in sorted(outcomes)) for cell, outcomes in merged.items()}
