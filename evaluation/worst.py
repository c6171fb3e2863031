"""What the strongest of all attacks leaves, and what attacks without a bound do."""

from collections.abc import Mapping
from itertools import product

from evaluation.attacks import APGD, Transfer
from evaluation.records import Cell, Merged
from evaluation.summary import Summary, summarize
from evaluation.wording import FIGURES, defense_name, describe, markdown, percent, row_name, share

ASKS = "asks"
BRINGS_CLASSIFIER = "brings a classifier"
BRINGS_POOL = "brings a classifier and a pool"
OWNS = "owns the weights"
ATTACKERS = (ASKS, BRINGS_CLASSIFIER, BRINGS_POOL, OWNS)
UNBOUNDED = {"linf": 1.0, "l2": (3 * 32 * 32) ** 0.5}
"""Radii that reach from any 32x32 image to any other."""


def worst_table(merged: Merged) -> str:
    """For each defense the attack, of all that were tried, that hurts it most, by each of the three figures.

    Once for each attacker: who only asks, who brings a classifier or a pool, too, to compute gradients of (those of the
    bundle itself, in the worst case), and who owns the weights. Only attacks within the paper's radius count, with seed
    0: the worst of several seeds would be the luckiest. The images are those of the attack that is named, and the clean
    accuracy is of the same ones.
    """
    rows = []
    standard = {
        cell: summarize(outcomes)
        for cell, outcomes in merged.items()
        if cell.ball == cell.attack.ball and cell.seed == 0
    }
    for cells in _by_row(standard).values():
        for attacker, figure in product(ATTACKERS, FIGURES):
            attacked = {cell: summary for cell, summary in cells.items() if _attacker(cell) == attacker}
            if attacked:
                cell = min(attacked, key=lambda one: share(attacked[one], figure).value)
                found = attacked[cell]
                rows.append([defense_name(cell), cell.served.precision, attacker, FIGURES[figure]])
                rows[-1] += [str(share(found, figure)), f"{percent(found, 'clean')} %", str(found.images)]
                rows[-1].append(describe(cell))
    head = ["defense", "precision", "attacker", "figure", "left", "clean", "images", "attack"]
    return "\n".join(["### The worst of all attacks tried, each on its own images", "", *markdown(head, rows), ""])


def sanity_table(merged: Merged) -> str:
    """What attacks that may change an image into any other leave; more than 0 tells of a broken attack."""
    rows = []
    for cell in sorted(filter(unbounded, merged), key=lambda one: (row_name(one), describe(one))):
        found = summarize(merged[cell])
        left = [f"{percent(found, figure)} %" for figure in ("clean", *FIGURES)]
        rows.append([row_name(cell), describe(cell), str(found.images), *left])
    head = ["defense", "attack", "images", "clean", *FIGURES.values()]
    return "\n".join(["### Unbounded: every defense must fall to 0", "", *markdown(head, rows), ""])


def unbounded(cell: Cell) -> bool:
    """Whether an attack may change an image into any other; the null attack changes none."""
    return cell.attack.kind != "null" and cell.ball.epsilon >= UNBOUNDED[cell.ball.norm]


def _attacker(cell: Cell) -> str | None:
    """Who can make this attack; nobody makes the null attack, unless other images draw anew while the same do not."""
    if isinstance(cell.attack, Transfer):
        return BRINGS_CLASSIFIER if cell.attack.defense == "none" else BRINGS_POOL
    if isinstance(cell.attack, APGD):
        return OWNS
    return None if cell.attack.kind == "null" and not cell.served.sticky else ASKS


def _by_row(summaries: Mapping[Cell, Summary]) -> dict[str, dict[Cell, Summary]]:
    rows: dict[str, dict[Cell, Summary]] = {}
    for cell in sorted(summaries, key=lambda one: (row_name(one), one.queries, one.digest())):
        rows.setdefault(row_name(cell), {})[cell] = summaries[cell]
    return rows
