"""Tables and figures are functions of records: what goes in comes out where it belongs."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from evaluation.attacks import APGD, NES, AnyAttack, Null, SimBA, Square, Transfer
from evaluation.ball import Ball
from evaluation.errors import EvaluationError
from evaluation.jobs import POOL_SIZES, SUITES, Subject
from evaluation.paper_table import paper_table
from evaluation.plots import attacked, draw_all
from evaluation.provenance import Provenance
from evaluation.records import Cell, Served, code_revision, merge, read_records
from evaluation.speed import SpeedRecord, Timing
from evaluation.tables import diversity_table, speed_table, tables
from evaluation.theory import DiversityPoint, DiversityRecord
from evaluation.trial import Stopping
from evaluation.verdict import Outcome
from evaluation.worst import sanity_table, worst_table
from tests.evaluation.test_records import CELL as TOY
from tests.evaluation.test_records import PROVENANCE

CELL = TOY.model_copy(update={"served": TOY.served.model_copy(update={"bundle": "cifar10"})})


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


def cell(attack: AnyAttack = CELL.attack, **changes: object) -> Cell:
    made = CELL.model_copy(update={"attack": attack, **changes})
    return made.model_copy(update={"revision": changes.get("revision", code_revision(attack, made.served))})


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

    assert row.startswith("| puridefense 2x2, K=2 on cifar10 0a1b2c in float32 | 10 | 100.0 (84.1) | 90.0 at 2500 |")
    assert "| 80.0 at 200, 60.0 at 2500 (77.3 / 67.8) |" in row
    assert "| 70.0 at 2500 (84.2 / 81.8) |" in row


def test_a_table_of_one_budget_names_it_once() -> None:
    table = paper_table({one: found for one, found in MERGED.items() if one.queries == 2500}, "any_hit")

    assert "at 2500 queries" in table.splitlines()[0]
    assert "| 60.0 (77.3 / 67.8) |" in line(table, "puridefense")


def test_values_of_other_images_are_in_a_row_of_their_own_beside_their_clean_accuracy() -> None:
    more = tuple(one.model_copy(update={"clean_draws_wrong": 10, "index": 2 * one.index}) for one in outcomes(5, 0))
    table = paper_table({**MERGED, cell(queries=2500, attack=SimBA(), ball=SimBA.ball): more[:8]}, "any_hit")

    first, second = (one for one in table.splitlines() if "puridefense" in one)
    assert first.startswith("| puridefense 2x2, K=2 on cifar10 0a1b2c in float32 | 8 | 50.0 (84.1) | - |")
    assert "37.5 at 2500" in first
    assert "| 10 | 100.0 (84.1) |" in second
    assert "60.0 at 2500" in second


def test_a_revision_of_the_past_is_told_even_if_it_stands_alone() -> None:
    assert "90.0 in revision 1 (" in paper_table({cell(revision=1): outcomes(1, 1)}, "any_hit")
    assert "90.0 (" in paper_table({cell(): outcomes(1, 1)}, "any_hit")


def test_todays_revision_of_a_random_target_is_not_that_of_another() -> None:
    undefended = cell(served=UNDEFENDED)

    assert cell().revision > undefended.revision
    assert "90.0 (" in paper_table({undefended: outcomes(1, 1)}, "any_hit")
    assert "90.0 in revision" in paper_table({cell(revision=undefended.revision): outcomes(1, 1)}, "any_hit")


@pytest.mark.parametrize(
    "change", [{"purifiers": ("a",)}, {"purifiers": ("a", "b")}, {"grid": 3}, {"purifiers": ("a",), "grid": 1}]
)
def test_other_pools_than_the_whole_one_on_its_own_grid_have_no_numbers_of_the_paper(change: dict[str, object]) -> None:
    whole = CELL.served.model_copy(update={"purifiers": ("a", "b", "c"), "networks_sha256": "whole1"})
    other = whole.model_copy(update={"networks_sha256": "other1", **change})
    merged = {
        cell(queries=2500, served=whole): outcomes(1, 0),
        cell(queries=200, served=whole): outcomes(1, 0),
        cell(queries=2500, served=other): outcomes(2, 0),
    }
    table = paper_table(merged, "any_hit")

    assert "90.0 at 2500 (77.3 / 67.8)" in line(table, "whole1")
    assert "77.3" not in line(table, "other1")


def test_cells_of_single_purifiers_do_not_make_their_grid_that_of_the_bundle() -> None:
    def pool(grid: int, *purifiers: str) -> Served:
        return CELL.served.model_copy(update={"grid": grid, "purifiers": purifiers, "networks_sha256": f"g{grid}"})

    merged = {cell(served=pool(grid, "a", "b", "c")): outcomes(1, 0) for grid in (1, 2, 3)}
    merged |= {cell(served=pool(1, name)): outcomes(2, 0) for name in "abc"}
    merged |= {cell(served=pool(2, "a", "b", "c"), attack=NES()): outcomes(2, 0)}
    table = paper_table(merged, "any_hit")

    assert "77.3" in line(table, "2x2")
    assert "77.3" not in "".join(line(table, name) for name in ("1x1, K=3", "3x3", "1x1, K=1 (a)"))


def test_one_purifier_alone_is_no_pool_even_if_there_is_no_larger_one() -> None:
    alone = CELL.served.model_copy(update={"purifiers": ("a",)})

    assert "77.3" not in paper_table({cell(served=alone): outcomes(1, 1)}, "any_hit")


def test_a_running_gateway_serves_its_whole_pool() -> None:
    gateway = CELL.served.model_copy(update={"over_http": True, "grid": None, "networks_sha256": None})

    assert "77.3" in line(paper_table({cell(served=gateway): outcomes(1, 1)}, "any_hit"), "over HTTP")


@pytest.mark.parametrize(
    ("bundle", "papers"),
    [("cifar10", True), ("my-CIFAR-10-at", True), ("cifar10 2", True), ("cifar100", False), ("toy", False)],
)
def test_the_papers_numbers_stand_beside_cifar10_alone(bundle: str, papers: bool) -> None:
    served = UNDEFENDED.model_copy(update={"bundle": bundle})
    table = paper_table({cell(served=served): outcomes(1, 1)}, "any_hit")

    assert ("(26.6 / 0.9)" in table or "(77.5 / 67.3)" in table) == papers
    assert ("the paper's" in table) == papers


@pytest.mark.parametrize("change", [{"precision": "bfloat16"}, {"networks_sha256": "5e6f7a8b"}, {"bundle": "other"}])
def test_other_networks_and_other_precisions_have_rows_of_their_own(change: dict[str, str]) -> None:
    other = CELL.served.model_copy(update=change)

    table = paper_table({**MERGED, cell(queries=2500, served=other): outcomes(10, 20)}, "any_hit")

    assert [one.count("60.0 at 2500 (") for one in table.splitlines() if "puridefense" in one].count(1) == 1
    assert any("| 0.0 at 2500" in one for one in table.splitlines())


def test_each_figure_has_a_table_of_its_own() -> None:
    assert "95.0 at 200, 90.0 at 2500 (77.3 / 67.8)" in line(paper_table(MERGED, "mean"), "puridefense")


def test_an_attack_with_other_settings_is_not_in_the_papers_table() -> None:
    assert "40.0" not in line(paper_table(MERGED, "any_hit"), "puridefense")


def test_the_worst_attack_is_named_for_each_figure() -> None:
    table = worst_table(MERGED)

    assert "square, samples=5, 2500 queries" in line(table, "puridefense", "any-hit", "40.0 %")
    assert "nes, 2500 queries" in line(table, "puridefense", "mean", "60.0 %")


def test_a_radius_of_ones_own_is_never_the_worst_and_an_unbounded_one_has_a_table() -> None:
    unbounded = cell(queries=2500, ball=Ball("linf", 1.0))
    merged = {**MERGED, unbounded: outcomes(10, 20), cell(queries=2500, ball=Ball("linf", 0.5)): outcomes(9, 19)}

    assert "40.0 %" in line(worst_table(merged), "puridefense", "any-hit")
    sanity = tables(merged).partition("### Unbounded: every defense must fall to 0")[2].partition("###")[0]
    assert line(sanity, "puridefense").endswith("| 10 | 100.0 % | 0.0 % | 0.0 % | 0.0 % |")
    assert "0.5" not in sanity


def test_there_is_no_table_of_unbounded_attacks_without_one() -> None:
    idle = cell(attack=Null(), ball=Ball("linf", 255.0))

    assert "Unbounded" not in tables({**MERGED, idle: outcomes(0, 0)})


def test_an_unbounded_attack_in_l2_reaches_from_black_to_white() -> None:
    near, far = (cell(attack=SimBA(), ball=Ball("l2", epsilon)) for epsilon in (50.0, 56.0))

    assert "l2 56" in sanity_table({near: outcomes(1, 1), far: outcomes(9, 9)})
    assert "l2 50" not in sanity_table({near: outcomes(1, 1), far: outcomes(9, 9)})


def test_the_worst_attack_has_its_images_precision_and_clean_accuracy_beside_it() -> None:
    fewer = tuple(one.model_copy(update={"clean_draws_wrong": 5}) for one in outcomes(3, 1)[:4])
    worst = line(worst_table({**MERGED, cell(queries=2500, attack=Square(p=0.3)): fewer}), "puridefense", "any-hit")

    assert worst.startswith("| puridefense 2x2, K=2 on cifar10 0a1b2c | float32 | asks | any-hit | 25.0 % [")
    assert worst.endswith(f"] | 75.0 % | 4 | square, p=0.3, 2500 queries, revision {cell().revision} |")


def test_who_owns_the_weights_is_told_apart_from_who_only_asks() -> None:
    table = worst_table({**MERGED, cell(queries=2500, attack=APGD()): outcomes(10, 20)})

    assert "40.0 %" in line(table, "puridefense", "any-hit", "asks")
    assert " 0.0 %" in line(table, "puridefense", "any-hit", "owns the weights")


def test_who_brings_networks_is_told_apart_from_both_and_by_what_they_are() -> None:
    bare, pool = (
        cell(queries=2500, attack=Transfer.model_validate({"surrogate": "bundles/other", "defense": defense}))
        for defense in ("none", "puridefense")
    )
    gradients = {bare: outcomes(8, 9), pool: outcomes(9, 9), cell(queries=2500, attack=APGD()): outcomes(10, 20)}
    table = worst_table({**MERGED, **gradients})

    assert "40.0 %" in line(table, "puridefense", "any-hit", "asks")
    assert "surrogate=bundles/other" in line(table, "puridefense", "any-hit", "brings a classifier |", "20.0 %")
    assert "10.0 %" in line(table, "puridefense", "any-hit", "brings a classifier and a pool")
    assert " 0.0 %" in line(table, "puridefense", "any-hit", "owns the weights")


def test_asking_about_clean_images_is_an_attack_only_where_draws_are_sticky() -> None:
    sticky = CELL.served.model_copy(update={"over_http": True, "sticky": True, "grid": None})
    table = worst_table({**MERGED, cell(served=sticky, attack=Null(), queries=2500): outcomes(10, 20)})

    assert "null, 2500 queries" in line(table, "over HTTP, sticky", "any-hit", "asks", " 0.0 %")
    assert line(table, "K=2 on cifar10 0a1b2c |", "any-hit", "asks", "40.0 %")


def test_another_seed_is_told_but_is_neither_the_papers_nor_the_worst() -> None:
    lucky = {**MERGED, cell(queries=2500, seed=1): outcomes(10, 20)}

    assert worst_table(lucky) == worst_table(MERGED)
    assert paper_table(lucky, "any_hit") == paper_table(MERGED, "any_hit")
    assert line(tables(lucky), "seed 1", " 0.0 %")


@pytest.mark.parametrize("change", [{"sticky": True}, {"bundle": "cifar10 1, rounded"}, {"bundle": "x 1, cifar10"}])
def test_gateways_that_are_not_what_the_paper_measured_have_none_of_its_numbers(change: dict[str, object]) -> None:
    gateway = CELL.served.model_copy(update={"over_http": True, "grid": None, "networks_sha256": None, **change})

    assert "77.3" not in paper_table({cell(served=gateway): outcomes(1, 1)}, "any_hit")


def test_a_gateway_that_lost_a_purifier_has_a_row_of_its_own() -> None:
    whole = CELL.served.model_copy(update={"over_http": True, "grid": None, "purifiers": ("a", "b", "c")})
    fewer = whole.model_copy(update={"purifiers": ("a", "b")})
    table = paper_table({cell(served=whole): outcomes(1, 1), cell(served=fewer): outcomes(2, 1)}, "any_hit")

    assert "90.0" in line(table, "K=3")
    assert "80.0" in line(table, "K=2")


def test_a_curve_of_an_older_revision_says_so() -> None:
    old = cell(served=UNDEFENDED, revision=1)
    figure = attacked({cell(): outcomes(1, 1), old: outcomes(9, 1)})["convergence-defenses"]

    assert figure is not None
    labels = [str(curve.get_label()) for curve in figure.axes[0].get_lines()]
    assert labels == ["none, revision 1", "puridefense"]


def test_curves_are_of_the_budget_that_most_were_measured_at() -> None:
    long = cell(served=UNDEFENDED, queries=2500)
    short = [cell(), cell(served=UNDEFENDED)]
    figure = attacked({one: outcomes(1, 1) for one in (*short, long)})["convergence-defenses"]

    assert figure is not None
    (axes,) = figure.axes
    assert [str(curve.get_label()) for curve in axes.get_lines()] == ["none", "puridefense"]
    assert axes.get_xlabel() == "queries, of a budget of 100"


def test_every_cell_is_in_the_whole_text() -> None:
    details = tables(MERGED).partition("All cells")[2]

    assert sum("queries" in one for one in details.splitlines()) == 1 + len(MERGED)


def test_a_time_stands_beside_its_share_of_the_bare_classifiers() -> None:
    assert line(speed_table([SPEED]), "disco-ensemble").endswith("| 9.00 [9.00, 9.00] | 4.50 |")


def test_diversity_is_told_for_each_size_and_that_equation_9_is_an_estimate() -> None:
    table = diversity_table([DIVERSITY])

    assert "| toy 1 | 1 | 0.0000 | 0.000 | 0.000 |" in table
    assert "an estimate and no bound" in table
    assert "bound of equation" not in table


def test_the_curves_against_the_size_of_the_pool_are_on_the_grid_of_most_sizes() -> None:
    names = tuple("abcdefghijkl")
    jobs = list(SUITES["pool"](500, Subject(Path(), names)))
    cells = [
        cell(
            queries=500,
            served=CELL.served.model_copy(update={"grid": job.grid or 2, "purifiers": job.pool or names}),
        )
        for job in jobs
        if job.defense == "puridefense"
    ]
    figures = attacked({one: outcomes(1, 1) for one in cells})

    pool, purifiers = figures["convergence-pool"], figures["purifiers"]
    assert pool is not None
    assert purifiers is not None
    assert [curve.get_label() for curve in pool.axes[0].get_lines()] == [f"K = {size}" for size in POOL_SIZES]
    assert len(purifiers.axes[0].get_xticks()) == len(names)


def test_sizes_grids_and_purifiers_are_compared_at_the_budget_that_most_were_measured_at() -> None:
    def pool(queries: int, grid: int, *purifiers: str) -> Cell:
        return cell(queries=queries, served=CELL.served.model_copy(update={"grid": grid, "purifiers": purifiers}))

    small = [pool(200, 2, "a"), pool(200, 2, "a", "b"), pool(200, 3, "a", "b"), pool(200, 1, "a"), pool(200, 1, "b")]
    large = [pool(500, 2, "a", "b"), pool(500, 1, "a")]
    figures = attacked({one: outcomes(1, 1) for one in (*small, *large)})

    assert _said(figures["accuracy-pool"]) == ("accuracy under Square, 200 queries, %", 2)
    assert _said(figures["accuracy-grid"]) == ("accuracy under Square, 200 queries, %", 2)
    grids = figures["accuracy-grid"]
    assert grids is not None
    assert [float(tick) for tick in grids.axes[0].get_xticks()] == [2, 3]
    legend = grids.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][1] == "any-hit"
    purifiers = figures["purifiers"]
    assert purifiers is not None
    assert purifiers.axes[0].get_ylabel() == "accuracy, clean and under Square, 200 queries, %"
    assert [one.get_text() for one in purifiers.axes[0].get_xticklabels()] == ["a", "b"]


def _said(figure: Figure | None) -> tuple[str, int]:
    """The title of the values of a figure, and how many places its first line has."""
    assert figure is not None
    (axes,) = figure.axes
    return axes.get_ylabel(), len(np.asarray(axes.get_lines()[0].get_xdata()))


def test_every_committed_record_is_told() -> None:
    folder = Path(__file__).parents[2] / "docs" / "records" / "cifar10"
    merged = merge(read_records([folder]))

    details = tables(merged).partition("All cells")[2]
    assert sum(" queries" in one for one in details.splitlines()) == len(merged) + 1


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_every_figure_that_there_is_something_for_is_drawn(tmp_path: Path, suffix: str) -> None:
    alone = CELL.served.model_copy(update={"grid": 1, "purifiers": ("a",)})
    merged = {**MERGED, cell(served=alone): outcomes(1, 1)}

    paths = draw_all(merged, [SPEED], [DIVERSITY], tmp_path, suffix)

    names = {path.stem for path in paths}
    drawn = ("convergence-defenses", "convergence-pool", "accuracy-pool", "accuracy-grid", "purifiers")
    assert names == {*(f"{name}-cifar10-float32" for name in drawn), "speed-1", "diversity-1"}
    assert all(path.stat().st_size > 1000 for path in paths)


def test_other_precisions_have_figures_of_their_own(tmp_path: Path) -> None:
    reduced = CELL.served.model_copy(update={"precision": "bfloat16"})
    merged = {**MERGED, cell(queries=2500, served=reduced): outcomes(1, 1)}

    names = {path.stem for path in draw_all(merged, [], [], tmp_path, "svg")}

    assert {"accuracy-pool-cifar10-float32", "accuracy-pool-cifar10-bfloat16"} <= names


def test_other_networks_of_one_name_are_not_drawn_as_if_they_were_the_same(tmp_path: Path) -> None:
    other = CELL.served.model_copy(update={"networks_sha256": "5e6f7a8b"})

    with pytest.raises(EvaluationError, match="other networks that are called cifar10"):
        draw_all({**MERGED, cell(queries=2500, served=other): outcomes(1, 1)}, [], [], tmp_path, "svg")


def test_the_same_records_give_the_same_picture(tmp_path: Path) -> None:
    first, second = (draw_all(MERGED, [], [], tmp_path / name, "svg") for name in "ab")

    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    assert draw_all({}, [], [], tmp_path, "svg") == []


def test_provenance_and_stopping_are_part_of_what_is_told() -> None:
    assert isinstance(PROVENANCE, Provenance)
    assert "until hit" in tables({cell(stopping=Stopping.HIT): outcomes(1, 1)})
