"""Tables and figures are functions of records: what goes in comes out where it belongs."""

from pathlib import Path

import pytest

from evaluation.attacks import APGD, NES, Null, Square, Transfer
from evaluation.errors import EvaluationError
from evaluation.plots import draw_all
from evaluation.provenance import Provenance
from evaluation.records import Cell
from evaluation.speed import SpeedRecord, Timing
from evaluation.tables import diversity_table, paper_table, speed_table, tables, worst_table
from evaluation.theory import DiversityPoint, DiversityRecord
from evaluation.trial import Stopping
from evaluation.verdict import Outcome
from tests.evaluation.test_records import CELL, PROVENANCE


def outcomes(hits: int, drawn_wrong: int) -> tuple[Outcome, ...]:
    """Ten images, so many hit by the fifth query, each misread in so many of 20 draws."""
    return tuple(
        Outcome(
            index=index,
            first_hit=5 if index < hits else None,
            spent=7,
            checks_wrong=9 if index < hits else 0,
            draws_wrong=drawn_wrong,
            clean_draws_wrong=0,
        )
        for index in range(10)
    )


def cell(**changes: object) -> Cell:
    return CELL.model_copy(update=changes)


UNDEFENDED = CELL.served.model_copy(update={"defense": "none", "grid": None, "purifiers": ()})
MERGED = {
    cell(queries=200): outcomes(2, 1),
    cell(queries=2500): outcomes(4, 2),
    cell(queries=2500, attack=Null()): outcomes(1, 0),
    cell(queries=2500, attack=NES()): outcomes(3, 8),
    cell(queries=2500, attack=Square(samples=5)): outcomes(6, 3),
    cell(queries=2500, served=UNDEFENDED): outcomes(9, 18),
}
SPEED = SpeedRecord(
    bundle="toy 1",
    precision="float32",
    grid=2,
    rounds=3,
    timings=tuple(
        Timing(defense=name, purifiers=size, batch=1, median_ms=time, quartiles_ms=(time, time))
        for name, size, time in (("none", 0, 2.0), ("puridefense", 1, 3.0), ("disco-ensemble", 2, 9.0))
    ),
    provenance=PROVENANCE,
)
DIVERSITY = DiversityRecord(
    bundle="toy 1", images=2, step=0.03, draws=4, seed=0, provenance=PROVENANCE,
    points=(DiversityPoint(purifiers=1, nu=0, lipschitz=0, flips=0, bound=0),),
)  # fmt: skip


def line(table: str, *parts: str) -> str:
    (found,) = (one for one in table.splitlines() if all(part in one for part in parts))
    return found


def test_a_cell_of_the_papers_table_has_both_budgets_and_the_papers_numbers_beside_them() -> None:
    row = line(paper_table(MERGED, "any_hit"), "puridefense")

    assert row.startswith("| puridefense 2x2, K=2 on toy 0a1b2c in float32 | 10 | 100.0 (84.1) | 90.0 |")
    assert "80.0 / 60.0 (77.3 / 67.8)" in row
    assert "| 70.0 (84.2 / 81.8) |" in row


@pytest.mark.parametrize("change", [{"precision": "bfloat16"}, {"networks_sha256": "5e6f7a8b"}, {"bundle": "other"}])
def test_other_networks_and_other_precisions_have_rows_of_their_own(change: dict[str, str]) -> None:
    other = CELL.served.model_copy(update=change)

    table = paper_table({**MERGED, cell(queries=2500, served=other): outcomes(10, 20)}, "any_hit")

    assert [one.count("/ 60.0 (") for one in table.splitlines() if "puridefense" in one].count(1) == 1
    assert any("| 0.0 (77.3 / 67.8)" in one for one in table.splitlines())


def test_each_figure_has_a_table_of_its_own() -> None:
    assert "95.0 / 90.0 (77.3 / 67.8)" in line(paper_table(MERGED, "mean"), "puridefense")


def test_an_attack_with_other_settings_is_not_in_the_papers_table() -> None:
    assert "40.0" not in line(paper_table(MERGED, "any_hit"), "puridefense")


def test_the_worst_attack_is_named_for_each_figure() -> None:
    table = worst_table(MERGED)

    assert "square, samples=5, 2500 queries" in line(table, "puridefense", "any-hit", "40.0 %")
    assert "nes, 2500 queries" in line(table, "puridefense", "mean", "60.0 %")


def test_who_owns_the_weights_is_told_apart_from_who_only_asks() -> None:
    table = worst_table({**MERGED, cell(queries=2500, attack=APGD()): outcomes(10, 20)})

    assert "40.0 %" in line(table, "puridefense", "any-hit", "asks")
    assert " 0.0 %" in line(table, "puridefense", "any-hit", "owns the weights")


def test_who_brings_a_network_is_told_apart_from_both() -> None:
    transfer = cell(queries=2500, attack=Transfer(surrogate=Path("bundles/other")))
    table = worst_table({**MERGED, transfer: outcomes(8, 9), cell(queries=2500, attack=APGD()): outcomes(10, 20)})

    assert "40.0 %" in line(table, "puridefense", "any-hit", "asks")
    assert "surrogate=bundles/other" in line(table, "puridefense", "any-hit", "brings a network", "20.0 %")
    assert " 0.0 %" in line(table, "puridefense", "any-hit", "owns the weights")


def test_every_cell_is_in_the_whole_text() -> None:
    details = tables(MERGED).partition("All cells")[2]

    assert sum("queries" in one for one in details.splitlines()) == 1 + len(MERGED)


def test_a_time_stands_beside_its_share_of_the_bare_classifiers() -> None:
    assert line(speed_table([SPEED]), "disco-ensemble").endswith("| 9.00 [9.00, 9.00] | 4.50 |")


def test_diversity_is_told_for_each_size() -> None:
    assert "| toy 1 | 1 | 0.0000 | 0.000 | 0.000 |" in diversity_table([DIVERSITY])


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_every_figure_that_there_is_something_for_is_drawn(tmp_path: Path, suffix: str) -> None:
    alone = CELL.served.model_copy(update={"grid": 1, "purifiers": ("a",)})
    merged = {**MERGED, cell(served=alone): outcomes(1, 1)}

    paths = draw_all(merged, [SPEED], [DIVERSITY], tmp_path, suffix)

    names = {path.stem for path in paths}
    attacked = ("convergence-defenses", "convergence-pool", "accuracy-pool", "accuracy-grid", "purifiers")
    assert names == {*(f"{name}-toy-float32" for name in attacked), "speed-1", "diversity-1"}
    assert all(path.stat().st_size > 1000 for path in paths)


def test_other_precisions_have_figures_of_their_own(tmp_path: Path) -> None:
    reduced = CELL.served.model_copy(update={"precision": "bfloat16"})
    merged = {**MERGED, cell(queries=2500, served=reduced): outcomes(1, 1)}

    names = {path.stem for path in draw_all(merged, [], [], tmp_path, "svg")}

    assert {"accuracy-pool-toy-float32", "accuracy-pool-toy-bfloat16"} <= names


def test_other_networks_of_one_name_are_not_drawn_as_if_they_were_the_same(tmp_path: Path) -> None:
    other = CELL.served.model_copy(update={"networks_sha256": "5e6f7a8b"})

    with pytest.raises(EvaluationError, match="other networks that are called toy"):
        draw_all({**MERGED, cell(queries=2500, served=other): outcomes(1, 1)}, [], [], tmp_path, "svg")


def test_the_same_records_give_the_same_picture(tmp_path: Path) -> None:
    first, second = (draw_all(MERGED, [], [], tmp_path / name, "svg") for name in "ab")

    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    assert draw_all({}, [], [], tmp_path, "svg") == []


def test_provenance_and_stopping_are_part_of_what_is_told() -> None:
    assert isinstance(PROVENANCE, Provenance)
    assert "until hit" in tables({cell(stopping=Stopping.HIT): outcomes(1, 1)})
