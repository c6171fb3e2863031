"""Records as Markdown tables: the paper's layout with its numbers beside ours, and the attacks on random defenses."""

from collections.abc import Container, Iterable, Mapping
from itertools import product

from evaluation.attacks import ATTACKS, Attack
from evaluation.paper import PAPER, PAPER_ATTACKS, PAPER_BUDGETS, PaperRow, is_cifar10
from evaluation.pools import POOL, whole_pools
from evaluation.records import Cell
from evaluation.speed import SpeedRecord
from evaluation.summary import Share, Summary, summarize
from evaluation.theory import ESTIMATE, DiversityRecord
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
UNBOUNDED = {"linf": 1.0, "l2": (3 * 32 * 32) ** 0.5}
"""Radii that reach from any 32x32 image to any other."""
FIGURES = {"any_hit": "any-hit", "confirmed": "confirmed (majority of 9)", "mean": "mean of 20 fresh draws"}


def tables(merged: Merged) -> str:
    """All tables that the records have something for."""
    parts = [paper_table(merged, figure) for figure in FIGURES]
    parts += [worst_table(merged), *([sanity_table(merged)] if any(map(_unbounded, merged)) else [])]
    return "\n".join([*parts, detail_table(merged)])


def paper_table(merged: Merged, figure: str) -> str:
    """One of the three figures in the layout of table 2: defenses down, attacks across, the paper in brackets.

    A row is of one defense on one set of images. Budgets stand beside the values where the table has several; so do
    revisions of an attack. The paper's numbers stand beside what it measured, on a bundle of CIFAR-10: of random pools
    beside the whole one on the grid of the bundle.
    """
    shown = {cell: outcomes for cell, outcomes in merged.items() if _as_in_the_paper(cell)}
    budgets = {cell.queries for cell in shown}
    whole, several = whole_pools(merged), _several(shown)
    rows, bracketed = [], False
    for (row, _), cells in _by_images(shown).items():
        paper = _paper(next(iter(cells)), whole)
        bracketed = bracketed or paper is not None
        rows.append([row, *_paper_row(cells, figure, paper, several)])
    title = f"### Robust accuracy in %, {FIGURES[figure]}, at {_numbers(budgets)} queries"
    if bracketed:
        title += f" (in brackets the paper's, on CIFAR-10, at {PAPER_BUDGETS[0]} / {PAPER_BUDGETS[1]})"
    return "\n".join([title, "", *_markdown(["defense", "images", "clean", "null", *PAPER_ATTACKS], rows), ""])


def worst_table(merged: Merged) -> str:
    """For each defense the attack, of all that were tried, that hurts it most, by each of the three figures.

    Once for each attacker: who only asks, who brings a network to compute gradients of, and who owns the weights.
    Only attacks within the paper's radius count. The images are those of the attack that is named, and the clean
    accuracy is of the same ones.
    """
    rows = []
    standard = {cell: summarize(outcomes) for cell, outcomes in merged.items() if cell.ball == cell.attack.ball}
    for cells in _by_row(standard).values():
        for attacker, figure in product(ATTACKERS, FIGURES):
            attacked = {cell: summary for cell, summary in cells.items() if _attacker(cell.attack.kind) == attacker}
            if attacked:
                cell = min(attacked, key=lambda one: _share(attacked[one], figure).value)
                found = attacked[cell]
                rows.append([_defense_name(cell), cell.served.precision, attacker, FIGURES[figure]])
                rows[-1] += [str(_share(found, figure)), f"{_percent(found, 'clean')} %", str(found.images)]
                rows[-1].append(_describe(cell))
    head = ["defense", "precision", "attacker", "figure", "left", "clean", "images", "attack"]
    return "\n".join(["### The worst of all attacks tried, each on its own images", "", *_markdown(head, rows), ""])


def sanity_table(merged: Merged) -> str:
    """What attacks that may change an image into any other leave; more than 0 tells of a broken attack."""
    rows = []
    for cell in sorted(filter(_unbounded, merged), key=lambda one: (_row_name(one), _describe(one))):
        found = summarize(merged[cell])
        left = [f"{_percent(found, figure)} %" for figure in ("clean", *FIGURES)]
        rows.append([_row_name(cell), _describe(cell), str(found.images), *left])
    head = ["defense", "attack", "images", "clean", *FIGURES.values()]
    return "\n".join(["### Unbounded: every defense must fall to 0", "", *_markdown(head, rows), ""])


def _unbounded(cell: Cell) -> bool:
    """Whether an attack may change an image into any other; the null attack changes none."""
    return cell.attack.kind != "null" and cell.ball.epsilon >= UNBOUNDED[cell.ball.norm]


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
    """Nu, and the sign flips against what equation (9) makes of it."""
    rows = [
        [record.bundle, str(point.purifiers), f"{point.nu:.4f}", f"{point.flips:.3f}", f"{point.bound:.3f}"]
        for record in records
        for point in record.points
    ]
    head = ["bundle", "K", "nu", "sign flips", "equation (9), an estimate"]
    lines = ["### Diversity", "", ESTIMATE, "", *_markdown(head, rows)]
    return "\n".join([*lines, ""])


def _paper_row(
    cells: Mapping[Cell, Summary], figure: str, paper: PaperRow | None, several: Mapping[str, bool]
) -> list[str]:
    some = next(iter(cells.values()))
    answer = [str(some.images), f"{_percent(some, 'clean')}" + (f" ({paper.clean})" if paper else "")]
    for kind in ("null", *PAPER_ATTACKS):
        ours = [_value(cell, one, figure, several) for cell, one in cells.items() if cell.attack.kind == kind]
        theirs = f" ({' / '.join(map(str, paper.attacks[kind]))})" if paper and kind in paper.attacks else ""
        answer.append((", ".join(ours) or "-") + theirs)
    return answer


def _value(cell: Cell, summary: Summary, figure: str, several: Mapping[str, bool]) -> str:
    """In percent, with its budget and the revision of its attack where others beside it have other ones."""
    words = [_percent(summary, figure)]
    words += [f"at {cell.queries}"] if several["queries"] else []
    words += [f"in revision {cell.revision}"] if several[cell.attack.kind] else []
    return " ".join(words)


def _several(cells: Iterable[Cell]) -> dict[str, bool]:
    """Whether there are several budgets, as `queries`, and several revisions of each kind of attack, by its name."""
    budgets: set[int] = set()
    revisions: dict[str, set[int]] = {}
    for cell in cells:
        budgets.add(cell.queries)
        revisions.setdefault(cell.attack.kind, set()).add(cell.revision)
    return {"queries": len(budgets) > 1, **{kind: len(found) > 1 for kind, found in revisions.items()}}


def _by_images(merged: Merged) -> dict[tuple[str, tuple[int, ...]], dict[Cell, Summary]]:
    """The cells of each defense on each set of images, smaller sets first."""
    rows: dict[tuple[str, tuple[int, ...]], dict[Cell, Summary]] = {}
    for cell in sorted(merged, key=lambda one: (_row_name(one), len(merged[one]), one.queries, one.digest())):
        indices = tuple(outcome.index for outcome in merged[cell])
        rows.setdefault((_row_name(cell), indices), {})[cell] = summarize(merged[cell])
    return rows


def _by_row(summaries: Mapping[Cell, Summary]) -> dict[str, dict[Cell, Summary]]:
    rows: dict[str, dict[Cell, Summary]] = {}
    for cell in sorted(summaries, key=lambda one: (_row_name(one), one.queries, one.digest())):
        rows.setdefault(_row_name(cell), {})[cell] = summaries[cell]
    return rows


def _row_name(cell: Cell) -> str:
    return f"{_defense_name(cell)} in {cell.served.precision}"


def _defense_name(cell: Cell) -> str:
    served = cell.served
    pool = f" {served.grid}x{served.grid}, K={len(served.purifiers)}" if served.grid else ""
    alone = f" ({served.purifiers[0]})" if len(served.purifiers) == 1 else ""
    networks = f" {served.networks_sha256[:NETWORKS_LENGTH]}" if served.networks_sha256 else ""
    where = f"on {served.bundle}{networks}{' over HTTP' if served.over_http else ''}"
    return f"{served.defense}{pool}{alone} {where}"


def _describe(cell: Cell) -> str:
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


def _as_in_the_paper(cell: Cell) -> bool:
    kind: type[Attack] = ATTACKS[cell.attack.kind]
    standard = cell.attack.kind in {*PAPER_ATTACKS, "null"} and cell.attack == kind()
    return standard and cell.ball == cell.attack.ball and cell.stopping is Stopping.CONFIRMED and cell.seed == 0


def _paper(cell: Cell, whole: Container[Cell]) -> PaperRow | None:
    """What the paper says of this defense; nothing of other images, and of pools other than the whole one."""
    if not is_cifar10(cell.served.bundle) or (cell.served.defense == POOL and cell not in whole):
        return None
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
