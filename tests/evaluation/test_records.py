"""Records come back as they were written, merge, and are told from those of another cell."""

import json
from pathlib import Path
from typing import ClassVar

import pytest

from evaluation import recheck
from evaluation.attacks import Square, Transfer
from evaluation.ball import Ball
from evaluation.errors import EvaluationError
from evaluation.provenance import Provenance
from evaluation.records import Cell, Record, Served, merge, read_record, read_records, write_record
from evaluation.trial import Stopping
from evaluation.verdict import Outcome

SERVED = Served(
    bundle="toy", networks_sha256="0a1b2c3d", defense="puridefense", grid=2, purifiers=("a", "b"), precision="float32"
)
CELL = Cell(
    served=SERVED, attack=Square(), ball=Ball("linf", 8 / 255), queries=100, stopping=Stopping.CONFIRMED, seed=0
)
PROVENANCE = Provenance(created="", seconds=1, device="cpu", python="3", pytorch="2", purigate="0", commit=None)


COMMITTED = sorted((Path(__file__).parents[2] / "docs" / "records" / "cifar10").glob("*.json"))


class NewSquare(Square):
    """Square after its code was changed."""

    revision: ClassVar[int] = Square.revision + 1


def outcome(index: int, spent: int = 100) -> Outcome:
    return Outcome(index=index, first_hit=None, spent=spent, checks_wrong=0, draws_wrong=1, clean_draws_wrong=0)


def record(begin: int, *outcomes: Outcome, cell: Cell = CELL, data: str = "0", tree: str | None = "tree") -> Record:
    return Record(
        cell=cell, bundle_version="1", begin=begin, data_sha256=data, tree_sha256=tree, outcomes=outcomes,
        provenance=PROVENANCE,
    )  # fmt: skip


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


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_records_are_read_as_they_are_and_without_a_revision_are_of_the_first(path: Path) -> None:
    told = json.loads(path.read_text())["cell"]
    read = read_record(path)

    again = json.loads(read.model_dump_json())["cell"]
    new_settings = again["attack"].keys() - told["attack"].keys()
    assert read.cell.revision == told.get("revision", 1)
    assert again | {"attack": {name: again["attack"][name] for name in told["attack"]}} == told
    assert new_settings or read.name == path.name


def test_a_cell_of_changed_code_has_another_file_and_comes_back_as_it_was(tmp_path: Path) -> None:
    changed = CELL.model_copy(update={"revision": CELL.revision + 1})
    path = write_record(tmp_path, record(0, outcome(1), cell=changed))

    assert path.name != record(0, outcome(1)).name
    assert read_record(path).cell == changed


def test_a_record_without_a_revision_is_of_the_first_whatever_the_code_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_record(tmp_path, record(0, outcome(1), cell=CELL.model_copy(update={"revision": 1})))
    monkeypatch.setattr(Square, "revision", 5)

    assert read_record(path).cell.revision == 1


def test_a_cell_has_the_revision_of_the_code_as_it_is_now() -> None:
    settings = {"served": SERVED, "ball": CELL.ball, "queries": 1, "stopping": CELL.stopping, "seed": 0}

    single = SERVED.model_copy(update={"purifiers": SERVED.purifiers[:1]})
    undefended = SERVED.model_copy(update={"defense": "none", "purifiers": ()})
    for attack in (Square(), NewSquare()):
        assert Cell.model_validate({**settings, "attack": attack}).revision == attack.revision + recheck.REVISION
        for served, more in ((single, 1), (undefended, 0)):
            cell = Cell.model_validate({**settings, "served": served, "attack": attack})
            assert cell.revision == attack.revision + more


def test_a_surrogate_is_the_same_wherever_it_lies() -> None:
    here, there, other = (
        CELL.model_copy(update={"attack": Transfer(surrogate=Path(folder), surrogate_sha256=told)})
        for folder, told in (("bundle", "ab"), ("/far/away/bundle", "ab"), ("bundle", "cd"))
    )

    assert here == there != other
    assert len({here, there, other}) == 2
    assert here.digest() == there.digest() != other.digest()
    assert "far" not in there.model_dump_json()


def test_sticky_draws_are_told_and_are_no_random_target() -> None:
    sticky = SERVED.model_copy(update={"over_http": True, "sticky": True})
    fresh = sticky.model_copy(update={"sticky": False})

    assert "sticky" not in fresh.model_dump_json()
    assert Served.model_validate_json(sticky.model_dump_json()) == sticky
    assert fresh.random
    assert not sticky.random


def test_the_hash_of_a_surrogate_is_part_of_a_cell_and_comes_back(tmp_path: Path) -> None:
    old, new, other = (
        CELL.model_copy(update={"attack": Transfer(surrogate=Path("bundle"), surrogate_sha256=told)})
        for told in (None, "ab", "cd")
    )
    path = write_record(tmp_path, record(0, outcome(1), cell=new))

    assert read_record(path).cell == new
    assert len({one.digest() for one in (old, new, other)}) == 3


def test_of_two_revisions_the_newest_counts_and_the_older_one_is_left_out() -> None:
    newer = CELL.model_copy(update={"revision": CELL.revision + 1})
    records = [record(0, outcome(3, spent=7), cell=newer), record(0, outcome(3), outcome(4))]

    for order in (records, records[::-1]):
        assert merge(order) == {newer: (outcome(3, spent=7),)}


@pytest.mark.parametrize("trees", [("a", "b"), (None, None), ("a", None), ("a", "a")])
def test_the_same_places_with_other_images_do_not_merge(trees: tuple[str | None, str | None]) -> None:
    first, second = (record(0, outcome(3), data=data, tree=tree) for data, tree in zip("01", trees, strict=True))

    with pytest.raises(EvaluationError, match="not of images of one tree") as error:
        merge([first, second])

    assert first.name in str(error.value)
    assert second.name in str(error.value)


def test_two_attacks_on_one_bundle_are_told_together_only_if_they_are_on_the_same_images() -> None:
    other = CELL.model_copy(update={"seed": 1})

    assert merge([record(0, outcome(3)), record(0, outcome(3), cell=other)]).keys() == {CELL, other}
    with pytest.raises(EvaluationError, match="not of images of one tree"):
        merge([record(0, outcome(3)), record(0, outcome(3), data="1", cell=other)])


def test_what_several_records_tell_of_one_image_does_not_depend_on_their_order() -> None:
    both = [record(0, outcome(3, spent=7), tree="a"), record(0, outcome(3), outcome(4), tree="a")]

    assert merge(both) == merge(both[::-1])


@pytest.mark.parametrize("trees", [("a", "b"), (None, None)])
def test_parts_that_overlap_but_have_no_tree_in_common_do_not_merge(trees: tuple[str | None, str | None]) -> None:
    first, second = trees

    with pytest.raises(EvaluationError, match="not of images of one tree"):
        merge([record(0, outcome(3), tree=first), record(0, outcome(3), outcome(4), data="1", tree=second)])


def test_parts_of_two_trees_do_not_merge_even_where_they_do_not_overlap() -> None:
    with pytest.raises(EvaluationError, match="not of images of one tree"):
        merge([record(0, outcome(3), tree="a"), record(1, outcome(4), data="1", tree="b")])


@pytest.mark.parametrize("trees", [("a", "a"), (None, None), (None, "a")])
def test_parts_of_one_tree_merge_as_do_those_of_before_trees_were_told(trees: tuple[str | None, str | None]) -> None:
    first, second = trees
    parts = [record(0, outcome(3), tree=first), record(1, outcome(4), data="1", tree=second)]

    assert [one.index for one in merge(parts)[CELL]] == [3, 4]


@pytest.mark.parametrize("content", ["", "{}", '{"format": 1}'])
def test_a_file_that_is_no_record_is_told_by_its_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "odd.json").write_text(content)

    with pytest.raises(EvaluationError, match=r"odd\.json"):
        read_records([tmp_path])


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="nowhere"):
        read_records([tmp_path, tmp_path / "nowhere"])
