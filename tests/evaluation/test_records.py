"""Records come back as they were written, merge, and are told from those of another cell."""

from pathlib import Path

import pytest

from evaluation.attacks import Square
from evaluation.ball import Ball
from evaluation.errors import EvaluationError
from evaluation.provenance import Provenance
from evaluation.records import Cell, Record, Served, merge, read_records, write_record
from evaluation.trial import Stopping
from evaluation.verdict import Outcome

SERVED = Served(
    bundle="toy", networks_sha256="0a1b2c3d", defense="puridefense", grid=2, purifiers=("a", "b"), precision="float32"
)
CELL = Cell(
    served=SERVED, attack=Square(), ball=Ball("linf", 8 / 255), queries=100, stopping=Stopping.CONFIRMED, seed=0
)
PROVENANCE = Provenance(created="", seconds=1, device="cpu", python="3", pytorch="2", purigate="0", commit=None)


def outcome(index: int, spent: int = 100) -> Outcome:
    return Outcome(index=index, first_hit=None, spent=spent, checks_wrong=0, draws_wrong=1, clean_draws_wrong=0)


def record(begin: int, *outcomes: Outcome, cell: Cell = CELL) -> Record:
    return Record(cell=cell, bundle_version="1", begin=begin, data_sha256="0", outcomes=outcomes, provenance=PROVENANCE)


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = record(0, outcome(3), outcome(4))
    write_record(tmp_path, written)

    assert read_records([tmp_path]) == [written]


def test_records_of_one_cell_merge_and_each_image_counts_once() -> None:
    other = CELL.model_copy(update={"seed": 1})
    merged = merge([record(2, outcome(7)), record(0, outcome(3), outcome(7)), record(0, outcome(3), cell=other)])

    assert [one.index for one in merged[CELL]] == [3, 7]
    assert [one.index for one in merged[other]] == [3]


def test_cells_that_differ_in_a_setting_have_files_of_their_own(tmp_path: Path) -> None:
    other = CELL.model_copy(update={"attack": Square(samples=5)})

    assert write_record(tmp_path, record(0, outcome(1))) != write_record(tmp_path, record(0, outcome(1), cell=other))


@pytest.mark.parametrize("content", ["", "{}", '{"format": 1}'])
def test_a_file_that_is_no_record_is_told_by_its_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "odd.json").write_text(content)

    with pytest.raises(EvaluationError, match=r"odd\.json"):
        read_records([tmp_path])


def test_a_folder_without_records_is_told(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no records"):
        read_records([tmp_path])
