"""Records as Markdown: all tables of robustness together, and those of speed and diversity."""

from collections.abc import Iterable

from evaluation.paper_table import paper_table
from evaluation.records import Merged
from evaluation.speed import SpeedRecord
from evaluation.summary import summarize
from evaluation.theory import ESTIMATE, DiversityRecord
from evaluation.wording import FIGURES, describe, markdown, row_name
from evaluation.worst import sanity_table, unbounded, worst_table


def tables(merged: Merged) -> str:
    """All tables that the records have something for."""
    parts = [paper_table(merged, figure) for figure in FIGURES]
    parts += [worst_table(merged), *([sanity_table(merged)] if any(map(unbounded, merged)) else [])]
    return "\n".join([*parts, detail_table(merged)])


def detail_table(merged: Merged) -> str:
    """Every cell, with its intervals."""
    rows = []
    for cell, outcomes in sorted(merged.items(), key=lambda item: (row_name(item[0]), describe(item[0]))):
        found = summarize(outcomes)
        figures = [str(share) for share in (found.clean, found.any_hit, found.confirmed, found.mean)]
        rows.append([row_name(cell), describe(cell), str(found.images), *figures, f"{found.queries:.0f}"])
    head = ["defense", "attack", "images", "clean", *FIGURES.values(), "queries spent"]
    return "\n".join(["### All cells, with 95 % intervals over images", "", *markdown(head, rows), ""])


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
    return "\n".join(["### Time of a pass", "", *markdown(head, rows), ""])


def diversity_table(records: Iterable[DiversityRecord]) -> str:
    """Nu, and the sign flips against what equation (9) makes of it."""
    rows = [
        [record.bundle, str(point.purifiers), f"{point.nu:.4f}", f"{point.flips:.3f}", f"{point.bound:.3f}"]
        for record in records
        for point in record.points
    ]
    head = ["bundle", "K", "nu", "sign flips", "equation (9), an estimate"]
    lines = ["### Diversity", "", ESTIMATE, "", *markdown(head, rows)]
    return "\n".join([*lines, ""])
