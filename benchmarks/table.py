"""A record as Markdown.

python -m benchmarks.table RECORD.json
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks.passes import Pass
from benchmarks.ratios import Figure, spread, undisturbed
from benchmarks.record import Record, Series, Trial
from benchmarks.slices import DISTURBING, Slice


def markdown(record: Record) -> str:
    """All of it, and nothing that is not in the record."""
    parts = [
        _head(record),
        _figures(record.figures),
        _series(record.series),
        _stages([one for one in record.series if one.stages]),
        _passes(record.passes),
        _trials(record.trials),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _head(record: Record) -> str:
    machine, plan, computing = record.machine, record.plan, record.computing
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    absent = f" Not installed: {', '.join(record.absent)}." if record.absent else ""
    return (
        f"{machine.processors} cores, {machine.processor}; networks on {computing.device} in {computing.precision}, "
        f"at most {computing.max_batch} images a batch, batches at once: {computing.workers}, threads of each: "
        f"{computing.threads}; bundle {computing.bundle}; {versions}; commit {machine.commit or 'unknown'}, "
        f"{machine.date}.\n\n"
        f"{plan.rounds} rounds, in each of which every system has {plan.seconds:g} s of load from {plan.connections} "
        f"connections after {plan.warm_up:g} s of warm-up, while the others sleep; {plan.bodies}, seed {plan.seed}; "
        f"client and servers share the cores; {record.seconds} s in all.{absent}{_others(record.series)}"
    )


def _others(series: Iterable[Series]) -> str:
    slices = [taken for one in series for taken in one.slices if taken.others is not None]
    if not slices:
        return ""
    disturbed = sum(taken.disturbed for taken in slices)
    spoiled = (
        f"; {disturbed} of {len(slices)} slices had more than {DISTURBING:g} and count only where no others are left"
    )
    busy = [taken.others or 0.0 for taken in slices]
    return (
        f" Others kept {median(busy):.2f} of the cores busy meanwhile, {max(busy):.2f} in the worst slice"
        f"{spoiled if disturbed else ''}."
    )


def _figures(figures: Iterable[Figure]) -> str:
    rows = [
        [one.name, with_spread((one.median, one.low, one.high), 2), str(one.rounds), *_goal(one)] for one in figures
    ]
    return _table(["figure", "median [spread]", "rounds", "goal", "met"], rows)


def _goal(figure: Figure) -> tuple[str, str]:
    if figure.met is None:
        return "", ""
    goal = f"at least {figure.at_least:g}" if figure.at_least is not None else f"at most {figure.at_most:g}"
    return goal, "yes" if figure.met else "**no**"


def _series(series: Iterable[Series]) -> str:
    head = ["system", "per second", "p50 ms", "p99 ms", "failed", "mean batch", "ready after s", "peak MiB", "agrees"]
    rows = []
    for one in series:
        rows.append([" ".join((one.name, *(f"`{flag}`" for flag in _pairs(one.flags))))])
        taken = undisturbed(one.slices)
        rows[-1] += [_rates(taken), _median([each.p50_ms for each in taken], 1)]
        rows[-1] += [_median([each.p99_ms for each in taken], 1), _failures(one), _number(one.mean_batch, 1)]
        rows[-1] += [_number(one.seconds_to_ready, 1), _number(one.peak_mebibytes, 0), _percent(one.agreement)]
    return _table(head, rows)


def _stages(series: Sequence[Series]) -> str:
    stages = list(dict.fromkeys(stage for one in series for stage in one.stages))
    rows = [[one.name, *(_number(one.stages.get(stage), 2) for stage in stages)] for one in series]
    return _table(["ms of a query, mean", *stages], rows)


def _passes(passes: Iterable[Pass]) -> str:
    rows = []
    for one in sorted(passes, key=lambda one: (one.device, one.batch, one.purifiers)):
        times = [with_spread(spread(each), 2) for each in (one.pass_ms, one.whole_ms)]
        rows.append([one.device, str(one.batch), str(one.purifiers), *times])
    return _table(["device", "batch", "purifiers", "pass, ms a batch", "pixels to scores, ms a batch"], rows)


def _trials(trials: Iterable[Trial]) -> str:
    rows = [
        [one.name, " ".join(f"`{flag}`" for flag in _pairs(one.flags)), _rates(one.slices), "yes" if one.chosen else ""]
        for one in trials
    ]
    return _table(["settings tried", "", "per second", "taken"], rows)


def _pairs(flags: Sequence[str]) -> list[str]:
    """Each flag with its value."""
    return [" ".join(pair) for pair in zip(flags[::2], flags[1::2], strict=True)]


def _rates(slices: Sequence[Slice]) -> str:
    return with_spread(spread([one.per_second for one in undisturbed(slices)]), 0)


def _failures(series: Series) -> str:
    kinds = sorted({kind for one in series.slices for kind in one.failed})
    return f"{series.failures} ({', '.join(kinds)})" if series.failures else "0"


def with_spread(values: tuple[float, float, float], digits: int) -> str:
    """The middle of some values, and how far they spread."""
    middle, low, high = (f"{value:,.{digits}f}" for value in values)
    return f"{middle} [{low}, {high}]"


def _median(values: Iterable[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    return _number(median(known), digits) if known else ""


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Nothing without rows."""
    lines = [head, ["---"] * len(head), *rows] if rows else []
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


app = typer.Typer(add_completion=False)


@app.command()
def main(record: Annotated[Path, typer.Argument(help="What `make bench` wrote.")]) -> None:
    """Prints the tables of a record."""
    typer.echo(markdown(Record.read(record)), nl=False)


if __name__ == "__main__":
    app()
