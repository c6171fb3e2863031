"""How tables call cells and shares, and how a table is written in Markdown."""

from evaluation.records import Cell
from evaluation.summary import Share, Summary
from evaluation.trial import Stopping

NETWORKS_LENGTH = 6
"""Digits of the digest of the networks in a row's name: bundles of one name may have other networks."""
FIGURES = {"any_hit": "any-hit", "confirmed": "confirmed (majority of 9)", "mean": "mean of 20 fresh draws"}


def row_name(cell: Cell) -> str:
    """A defense, what it stands on, and the precision."""
    return f"{defense_name(cell)} in {cell.served.precision}"


def defense_name(cell: Cell) -> str:
    """A defense with its grid and the size of its pool, and the bundle with the networks that it stands on."""
    served = cell.served
    patches = f" {served.grid}x{served.grid}," if served.grid else ""
    pool = f"{patches} K={len(served.purifiers)}" if served.grid or (served.over_http and served.purifiers) else ""
    alone = f" ({served.purifiers[0]})" if len(served.purifiers) == 1 else ""
    networks = f" {served.networks_sha256[:NETWORKS_LENGTH]}" if served.networks_sha256 else ""
    way = (" over HTTP" if served.over_http else "") + (", sticky" if served.sticky else "")
    where = f"on {served.bundle}{networks}{way}"
    return f"{served.defense}{pool}{alone} {where}"


def describe(cell: Cell) -> str:
    """An attack in words: its name, what differs from its defaults, its budget."""
    changed = cell.attack.model_dump(exclude_defaults=True, exclude={"kind"}, mode="json")
    settings = (
        f"{name}={value[:NETWORKS_LENGTH] if name.endswith('_sha256') else value}" for name, value in changed.items()
    )
    words = [cell.attack.kind, *settings, f"{cell.queries} queries"]
    if cell.ball != cell.attack.ball:
        words.append(f"{cell.ball.norm} {cell.ball.epsilon:.4g}")
    if cell.stopping is not Stopping.CONFIRMED:
        words.append(f"until {cell.stopping}")
    if cell.seed:
        words.append(f"seed {cell.seed}")
    if cell.revision > 1:
        words.append(f"revision {cell.revision}")
    return ", ".join(words)


def share(summary: Summary, figure: str) -> Share:
    """One of the figures of a summary, by its name."""
    found: Share = getattr(summary, figure)
    return found


def percent(summary: Summary, figure: str) -> str:
    """One of the figures in percent, without a sign."""
    return f"{100 * share(summary, figure).value:.1f}"


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
