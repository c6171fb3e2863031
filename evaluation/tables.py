"""Records as Markdown tables: the paper's layout with its numbers beside ours, and the attacks on random defenses."""

from collections.abc import Iterable, Mapping
from itertools import product

from evaluation.attacks import ATTACKS, Attack
from evaluation.paper import PAPER, PAPER_ATTACKS, PAPER_BUDGETS, PaperRow
from evaluation.records import Cell
from evaluation.speed import SpeedRecord
from evaluation.summary import Share, Summary, summarize
from evaluation.theory import DiversityRecord
from evaluation.trial import Stopping
from evaluation.verdict import Outcome

Merged = Mapping[Cell, tuple[Outcome, ...]]
ADVERSARIALLY_TRAINED = "-at"
"""How the name of a bundle ends whose classifier was trained adversarially."""
ASKS = "asks"
ATTACKERS = (ASKS, "brings a network", "owns the weights")
WITH_GRADIENTS = {"transfer": ATTACKERS[1], "apgd": ATTACKERS[2]}
"""Who can make these attacks; all others need nothing but answers."""
NETWORKS_LENGTH = 6
"""Digits of the digest of the networks in a row's name: bundles of one name may have other networks."""
FIGURES = {"any_hit": "any-hit", "confirmed": "confirmed (majority of 9)", "mean": "mean of 20 fresh draws"}


def tables(merged: Merged) -> str:
    """All tables that the records have something for."""
    parts = [paper_table(merged, figure) for figure in FIGURES]
    return "\n".join([*parts, worst_table(merged), detail_table(merged)])


def paper_table(merged: Merged, figure: str) -> str:
    """One of the three figures in the layout of table 2: defenses down, attacks across, the paper in brackets."""
    plain = {cell: summarize(outcomes) for cell, outcomes in merged.items() if _as_in_the_paper(cell)}
    budgets = {cell.queries for cell in plain if cell.attack.kind in PAPER_ATTACKS}
    head = ["defense", "images", "clean", "null", *PAPER_ATTACKS]
    lines = [f"### Robust accuracy in %, {FIGURES[figure]}, at {_numbers(budgets)} queries (paper: 200, 2500)", ""]
    lines += _markdown(head, [_paper_row(row, cells, figure) for row, cells in _by_row(plain).items()])
    return "\n".join([*lines, ""])


def worst_table(merged: Merged) -> str:
    """For each defense the attack, of all that were tried, that hurts it most, by each of the three figures.

    Once for each attacker: who only asks, who brings a network to compute gradients of, and who owns the weights.
    """
    rows = []
    for row, cells in _by_row({cell: summarize(outcomes) for cell, outcomes in merged.items()}).items():
        for attacker, figure in product(ATTACKERS, FIGURES):
            attacked = {cell: summary for cell, summary in cells.items() if _attacker(cell.attack.kind) == attacker}
            if attacked:
                cell = min(attacked, key=lambda one: _share(attacked[one], figure).value)
                left, images = str(_share(attacked[cell], figure)), str(attacked[cell].images)
                rows.append([row, attacker, FIGURES[figure], left, _describe(cell), images])
    lines = ["### The worst of all attacks tried", ""]
    return "\n".join([*lines, *_markdown(["defense", "attacker", "figure", "left", "attack", "images"], rows), ""])


def _attacker(kind: str) -> str | None:
    """Who makes an attack of this kind; nobody makes the null attack."""
    return None if kind == "null" else WITH_GRADIENTS.get(kind, ASKS)


def detail_table(merged: Merged) -> str:
    """Every cell, with its intervals."""
    rows = []
    for cell, outcomes in sorted(merged.items(), key=lambda item: (_row_name(item[0]), _describe(item[0]))):
        found = summarize(outcomes)
        figures = [str(share) for share in (found.clean, found.any_hit, found.confirmed, found.mean)]
        rows.append([_row_name(cell), _describe(cell), str(found.images), *figures, f"{found.queries:.0f}"])
    head = ["defense", "attack", "images", "clean", *FIGURES.values(), "queries spent"]
    return "\n".join(["### All cells, with 95 % intervals over images", "", *_markdown(head, rows), ""])


def speed_table(records: Iterable[SpeedRecord]) -> str:
    """The time of a pass, in ms and over that of the bare classifier."""
    rows = []
    for record in records:
        bare = {timing.batch: timing.median_ms for timing in record.timings if not timing.purifiers}
        for one in record.timings:
            times = f"{one.median_ms:.2f} [{one.quartiles_ms[0]:.2f}, {one.quartiles_ms[1]:.2f}]"
            ratio = f"{one.median_ms / bare[one.batch]:.2f}"
            rows.append([record.provenance.device, record.precision, one.defense, str(one.purifiers), str(one.batch)])
            rows[-1] += [times, ratio]
    head = ["device", "precision", "defense", "K", "batch", "ms, median [quartiles]", "over bare"]
    return "\n".join(["### Time of a pass", "", *_markdown(head, rows), ""])


def diversity_table(records: Iterable[DiversityRecord]) -> str:
    """Nu, and the sign flips against their bound."""
    rows = [
        [record.bundle, str(point.purifiers), f"{point.nu:.4f}", f"{point.flips:.3f}", f"{point.bound:.3f}"]
        for record in records
        for point in record.points
    ]
    lines = ["### Diversity", "", *_markdown(["bundle", "K", "nu", "sign flips", "bound of equation (9)"], rows)]
    return "\n".join([*lines, ""])


def _paper_row(row: str, cells: Mapping[Cell, Summary], figure: str) -> list[str]:
    some = next(iter(cells.values()))
    paper = _paper(next(iter(cells)))
    clean = f"{100 * some.clean.value:.1f}" + (f" ({paper.clean})" if paper else "")
    null = [_percent(summary, figure) for cell, summary in cells.items() if cell.attack.kind == "null"]
    answer = [row, str(min(one.images for one in cells.values())), clean, " / ".join(null) or "-"]
    for kind in PAPER_ATTACKS:
        ours = sorted((cell.queries, _percent(one, figure)) for cell, one in cells.items() if cell.attack.kind == kind)
        theirs = f" ({' / '.join(map(str, paper.attacks[kind]))})" if paper else ""
        answer.append(" / ".join(value for _, value in ours) + theirs if ours else "-" + theirs)
    return answer


def _by_row(summaries: Mapping[Cell, Summary]) -> dict[str, dict[Cell, Summary]]:
    rows: dict[str, dict[Cell, Summary]] = {}
    for cell in sorted(summaries, key=lambda one: (_row_name(one), one.queries, one.digest())):
        rows.setdefault(_row_name(cell), {})[cell] = summaries[cell]
    return rows


def _row_name(cell: Cell) -> str:
    served = cell.served
    pool = f" {served.grid}x{served.grid}, K={len(served.purifiers)}" if served.grid else ""
    alone = f" ({served.purifiers[0]})" if len(served.purifiers) == 1 else ""
    networks = f" {served.networks_sha256[:NETWORKS_LENGTH]}" if served.networks_sha256 else ""
    where = f"on {served.bundle}{networks} in {served.precision}"
    return f"{served.defense}{pool}{alone} {where}{' over HTTP' if served.over_http else ''}"


def _describe(cell: Cell) -> str:
    """An attack in words: its name, what differs from its defaults, its budget."""
    changed = cell.attack.model_dump(exclude_defaults=True, exclude={"kind"}, mode="json")
    words = [cell.attack.kind, *(f"{name}={value}" for name, value in changed.items()), f"{cell.queries} queries"]
    if cell.ball != cell.attack.ball:
        words.append(f"{cell.ball.norm} {cell.ball.epsilon:.4g}")
    if cell.stopping is not Stopping.CONFIRMED:
        words.append(f"until {cell.stopping}")
    if cell.seed:
        words.append(f"seed {cell.seed}")
    return ", ".join(words)


def _as_in_the_paper(cell: Cell) -> bool:
    kind: type[Attack] = ATTACKS[cell.attack.kind]
    standard = cell.attack.kind in {*PAPER_ATTACKS, "null"} and cell.attack == kind()
    return standard and cell.ball == cell.attack.ball and cell.stopping is Stopping.CONFIRMED and cell.seed == 0


def _paper(cell: Cell) -> PaperRow | None:
    trained = cell.served.bundle.partition(" ")[0].endswith(ADVERSARIALLY_TRAINED)
    return PAPER.get(cell.served.defense + (ADVERSARIALLY_TRAINED if trained else ""))


def _share(summary: Summary, figure: str) -> Share:
    share: Share = getattr(summary, figure)
    return share


def _percent(summary: Summary, figure: str) -> str:
    return f"{100 * _share(summary, figure).value:.1f}"


def _numbers(budgets: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(budgets))) or f"{PAPER_BUDGETS[0]}, {PAPER_BUDGETS[1]}"


def _markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
