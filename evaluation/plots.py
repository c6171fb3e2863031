"""Records as figures, SVG or PNG; each is a pure function of records."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from evaluation.attacks import Square
from evaluation.errors import EvaluationError
from evaluation.pools import POOL, usual_grids
from evaluation.records import Cell, Merged, Served, code_revision
from evaluation.speed import SpeedRecord
from evaluation.summary import any_hit_curve, summarize
from evaluation.theory import DiversityRecord
from evaluation.trial import Stopping
from evaluation.verdict import Outcome

SIZE_INCHES = (7.0, 4.5)


def draw_all(
    merged: Merged, speeds: Sequence[SpeedRecord], diversities: Sequence[DiversityRecord], folder: Path, suffix: str
) -> list[Path]:
    """Writes every figure that the records have something for, and says which.

    What was measured on another bundle or in another precision has figures of its own.

    Raises:
        EvaluationError: bundles of one name have other networks.
    """
    bundles = {name: attacked(some) for name, some in _by_bundle(merged).items()}
    figures = {
        **{f"{kind}-{name}": figure for name, drawn in bundles.items() for kind, figure in drawn.items()},
        **{f"speed-{number}": speed(record) for number, record in enumerate(speeds, 1)},
        **{f"diversity-{number}": diversity(record) for number, record in enumerate(diversities, 1)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with mpl.rc_context({"svg.hashsalt": "purigate"}):
        for name, figure in figures.items():
            if figure is not None:
                paths.append(folder / f"{name}.{suffix}")
                figure.savefig(paths[-1], dpi=150, metadata={"Date": None} if suffix == "svg" else None)
    return paths


def attacked(merged: Merged) -> dict[str, Figure | None]:
    """The figures of one bundle under Square, by their names; none where there is nothing to draw."""
    squares = {cell: found for cell, found in merged.items() if _plain(cell)}
    pools = {cell: found for cell, found in squares.items() if cell.served.defense == POOL}
    largest = max((len(cell.served.purifiers) for cell in pools), default=0)
    full = {cell: found for cell, found in pools.items() if len(cell.served.purifiers) == largest}
    grid = next(iter(usual_grids(pools)), None)
    sized = {cell: found for cell, found in pools.items() if cell.served.grid == grid}
    alone = {cell: found for cell, found in pools.items() if len(cell.served.purifiers) == 1 and cell.served.grid == 1}
    whole = {cell: found for cell, found in full.items() if cell.served.grid == grid}
    others = {cell: found for cell, found in squares.items() if cell.served.defense != POOL}
    return {
        "convergence-defenses": convergence({**others, **whole}, lambda cell: cell.served.defense),
        "convergence-pool": convergence(sized, lambda cell: f"K = {len(cell.served.purifiers)}"),
        "accuracy-pool": accuracy(sized, lambda cell: len(cell.served.purifiers), "purifiers in the pool, K"),
        "accuracy-grid": accuracy(full, lambda cell: cell.served.grid or 0, "patches along each dimension"),
        "purifiers": bars(alone, lambda cell: cell.served.purifiers[0]),
    }


def convergence(merged: Merged, name: Callable[[Cell], str]) -> Figure | None:
    """Images without a hit against queries (figures 5 and 6), at one budget."""
    if not merged:
        return None
    queries, compared = _at_one_budget(merged, name)
    figure, axes = _axes(f"queries, of a budget of {queries}", "images without a hit, %")
    for cell in sorted(compared, key=lambda cell: (len(cell.served.purifiers), name(cell))):
        shares = any_hit_curve(compared[cell], queries)
        axes.plot([100 * share for share in shares], label=f"{name(cell)}{_revision(cell)}")
    axes.set_ylim(0, 100)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")  # a curve may be anywhere within
    return figure


def accuracy(merged: Merged, place: Callable[[Cell], int], title: str) -> Figure | None:
    """The four accuracies against the size of the pool or the number of patches (figure 11), at one budget."""
    if not merged:
        return None
    queries, compared = _at_one_budget(merged, place)
    points = sorted(((place(cell), summarize(found)) for cell, found in compared.items()), key=lambda point: point[0])
    figure, axes = _axes(title, f"accuracy under Square, {queries} queries, %")
    for label in ("clean", "any_hit", "confirmed", "mean"):
        shares = [getattr(summary, label) for _, summary in points]
        errors = [[100 * (one.value - one.low) for one in shares], [100 * (one.high - one.value) for one in shares]]
        values = [100 * one.value for one in shares]
        axes.errorbar([at for at, _ in points], values, errors, label=label.replace("_", "-"), capsize=3)
    axes.set_xticks(sorted({at for at, _ in points}))
    axes.set_ylim(0, 100)
    axes.legend()
    return figure


def bars(merged: Merged, name: Callable[[Cell], str]) -> Figure | None:
    """Clean and attacked accuracy behind each purifier alone (figure 10)."""
    if not merged:
        return None
    queries, compared = _at_one_budget(merged, name)
    figure, axes = _axes("", f"accuracy, clean and under Square, {queries} queries, %")
    found = {
        name(cell): summarize(outcomes) for cell, outcomes in sorted(compared.items(), key=lambda one: name(one[0]))
    }
    places = range(len(found))
    axes.bar([at - 0.2 for at in places], [100 * one.clean.value for one in found.values()], 0.4, label="clean")
    axes.bar([at + 0.2 for at in places], [100 * one.mean.value for one in found.values()], 0.4, label="under Square")
    axes.set_xticks(list(places), list(found), rotation=45, ha="right")
    axes.legend()
    return figure


def speed(record: SpeedRecord) -> Figure:
    """The time of a pass against K (figures 7 and 8), in units of the bare classifier's."""
    figure, axes = _axes("purifiers, K", "time of a pass over that of the bare classifier")
    for batch in sorted({timing.batch for timing in record.timings}):
        some = [timing for timing in record.timings if timing.batch == batch]
        bare = next(timing.median_ms for timing in some if not timing.purifiers)
        for defense in sorted({timing.defense for timing in some if timing.purifiers}):
            curve = [(one.purifiers, one.median_ms / bare) for one in some if one.defense == defense]
            axes.plot(*zip(*curve, strict=True), marker="o", label=f"{defense}, batch {batch}")
    axes.set_title(f"{record.provenance.device}, {record.precision}", fontsize="small")
    axes.legend()
    return figure


def diversity(record: DiversityRecord) -> Figure:
    """How often a direction turns around, and what equation (9) makes of it, against K; nu beside them."""
    figure, axes = _axes("purifiers, K", "probability that the sign of a direction turns")
    sizes = [point.purifiers for point in record.points]
    axes.plot(sizes, [point.flips for point in record.points], marker="o", label="measured")
    axes.plot(sizes, [point.bound for point in record.points], marker="o", label="equation (9), an estimate")
    beside = axes.twinx()
    beside.plot(sizes, [point.nu for point in record.points], marker="s", color="gray", label="nu")
    beside.set_ylabel("nu of equation (5)")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _axes(across: str, up: str) -> tuple[Figure, "mpl.axes.Axes"]:
    figure = Figure(SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot(xlabel=across, ylabel=up)
    axes.grid(alpha=0.3)
    return figure, axes


def _at_one_budget(merged: Merged, place: Callable[[Cell], int | str]) -> tuple[int, Merged]:
    """The cells of the budget at which most places were measured, of the largest such one: others do not compare."""
    places: dict[int, set[int | str]] = {}
    for cell in merged:
        places.setdefault(cell.queries, set()).add(place(cell))
    queries = max(places, key=lambda budget: (len(places[budget]), budget))
    return queries, {cell: found for cell, found in merged.items() if cell.queries == queries}


def _by_bundle(merged: Merged) -> dict[str, Merged]:
    """The cells of each bundle and precision, by both as a part of a file's name.

    Raises:
        EvaluationError: bundles of one name have other networks, and would look like one.
    """
    networks: dict[Served, set[str | None]] = {}
    for cell in merged:
        networks.setdefault(cell.served.model_copy(update={"networks_sha256": None}), set()).add(
            cell.served.networks_sha256
        )
    if several := [served.bundle for served, hashes in networks.items() if len(hashes) > 1]:
        raise EvaluationError(f"there are records of other networks that are called {several[0]} too; plot them apart")
    groups: dict[str, dict[Cell, tuple[Outcome, ...]]] = {}
    for cell, found in merged.items():
        name = f"{cell.served.bundle.replace(' ', '-')}-{cell.served.precision}"
        groups.setdefault(name, {})[cell] = found
    return dict(groups)


def _plain(cell: Cell) -> bool:
    """Whether it is Square with its default settings and the first seed."""
    standard = cell.attack == Square() and cell.ball == cell.attack.ball
    return standard and cell.stopping is Stopping.CONFIRMED and cell.seed == 0


def _revision(cell: Cell) -> str:
    """Words about the revision of an attack that is not today's."""
    return "" if cell.revision == code_revision(cell.attack, cell.served) else f", revision {cell.revision}"
