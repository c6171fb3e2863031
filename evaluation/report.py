"""Tells a result on a terminal."""

from rich.console import Console
from rich.table import Table

from evaluation.records import Cell
from evaluation.summary import summarize
from evaluation.verdict import Outcome


def tell(cell: Cell, outcomes: tuple[Outcome, ...]) -> None:
    """The figures of one cell."""
    summary = summarize(outcomes)
    ball = f"{cell.ball.norm} {cell.ball.epsilon:.4g}"
    title = f"{cell.attack.kind}, {ball}, {cell.queries} queries, on {cell.served.defense}: {summary.images} images"
    table = Table("accuracy", "95 % interval over images", title=title)
    table.add_row("clean", str(summary.clean))
    table.add_row("any-hit", str(summary.any_hit))
    table.add_row("confirmed (majority of 9)", str(summary.confirmed))
    table.add_row("mean of 20 fresh draws", str(summary.mean))
    table.add_row("queries spent an image", f"{summary.queries:.0f}")
    Console().print(table)
