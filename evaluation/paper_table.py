"""The layout of the paper's table 2, with its numbers beside ours."""

from collections.abc import Container, Iterable, Mapping

from evaluation.attacks import ATTACKS, Attack
from evaluation.paper import PAPER, PAPER_ATTACKS, PAPER_BUDGETS, PaperRow, is_cifar10
from evaluation.pools import POOL, whole_pools
from evaluation.records import Cell, Merged, code_revision
from evaluation.summary import Summary, summarize
from evaluation.trial import Stopping
from evaluation.wording import FIGURES, markdown, percent, row_name

ADVERSARIALLY_TRAINED = "-at"
"""How the name of a bundle ends whose classifier was trained adversarially."""


def paper_table(merged: Merged, figure: str) -> str:
    """One of the three figures in the layout of table 2: defenses down, attacks across, the paper in brackets.

    A row is of one defense on one set of images. Budgets stand beside the values where the table has several;
    revisions of an attack where they are not today's. The paper's numbers stand beside what it measured, on a bundle of
    CIFAR-10: of random pools beside the whole one on the grid of the bundle.
    """
    shown = {cell: outcomes for cell, outcomes in merged.items() if _as_in_the_paper(cell)}
    budgets = {cell.queries for cell in shown}
    whole, several = whole_pools(merged), len(budgets) > 1
    rows, bracketed = [], False
    for (row, _), cells in _by_images(shown).items():
        paper = _paper(next(iter(cells)), whole)
        bracketed = bracketed or paper is not None
        rows.append([row, *_paper_row(cells, figure, paper, several)])
    title = f"### Robust accuracy in %, {FIGURES[figure]}, at {_numbers(budgets)} queries"
    if bracketed:
        title += f" (in brackets the paper's, on CIFAR-10, at {PAPER_BUDGETS[0]} / {PAPER_BUDGETS[1]})"
    return "\n".join([title, "", *markdown(["defense", "images", "clean", "null", *PAPER_ATTACKS], rows), ""])


def _paper_row(cells: Mapping[Cell, Summary], figure: str, paper: PaperRow | None, several: bool) -> list[str]:
    some = next(iter(cells.values()))
    answer = [str(some.images), f"{percent(some, 'clean')}" + (f" ({paper.clean})" if paper else "")]
    for kind in ("null", *PAPER_ATTACKS):
        ours = [_value(cell, one, figure, several) for cell, one in cells.items() if cell.attack.kind == kind]
        theirs = f" ({' / '.join(map(str, paper.attacks[kind]))})" if paper and kind in paper.attacks else ""
        answer.append((", ".join(ours) or "-") + theirs)
    return answer


def _value(cell: Cell, summary: Summary, figure: str, several: bool) -> str:
    """In percent; with its budget where there are several, and its revision if that is not today's code's.

    The attack may be stronger by now.
    """
    told = cell.revision != code_revision(cell.attack, cell.served)
    words = [percent(summary, figure)]
    words += [f"at {cell.queries}"] if several else []
    words += [f"in revision {cell.revision}"] if told else []
    return " ".join(words)


def _by_images(merged: Merged) -> dict[tuple[str, tuple[int, ...]], dict[Cell, Summary]]:
    """The cells of each defense on each set of images, smaller sets first."""
    rows: dict[tuple[str, tuple[int, ...]], dict[Cell, Summary]] = {}
    for cell in sorted(merged, key=lambda one: (row_name(one), len(merged[one]), one.queries, one.digest())):
        indices = tuple(outcome.index for outcome in merged[cell])
        rows.setdefault((row_name(cell), indices), {})[cell] = summarize(merged[cell])
    return rows


def _as_in_the_paper(cell: Cell) -> bool:
    kind: type[Attack] = ATTACKS[cell.attack.kind]
    standard = cell.attack.kind in {*PAPER_ATTACKS, "null"} and cell.attack == kind()
    return standard and cell.ball == cell.attack.ball and cell.stopping is Stopping.CONFIRMED and cell.seed == 0


def _paper(cell: Cell, whole: Container[Cell]) -> PaperRow | None:
    """What the paper says of this defense.

    Nothing of other images, of pools other than the whole one, and of gateways that are sticky, hide scores or have a
    setup of their own: what it measured drew anew for each query and told all scores.
    """
    served = cell.served
    name = served.bundle.partition(" ")[0]
    other = served.sticky or (served.over_http and "," in served.bundle)
    if other or not is_cifar10(name) or (served.defense == POOL and cell not in whole):
        return None
    trained = name.endswith(ADVERSARIALLY_TRAINED)
    return PAPER.get(cell.served.defense + (ADVERSARIALLY_TRAINED if trained else ""))


def _numbers(budgets: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(budgets))) or f"{PAPER_BUDGETS[0]}, {PAPER_BUDGETS[1]}"
