"""Workers: how a CPU is best divided among batches: many on one processor each, or one at a time on all of them.

    python -m benchmarks.workers

Every division runs the engine of `purigate serve` in a process of its own, as many batches at once as it has workers.
In each round all divisions take turns, while the others wait.
"""

import json
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks.bodies import blots
from benchmarks.machine import Machine
from benchmarks.offline import running_offline
from benchmarks.systems import Served
from models.bundle import read_manifest
from service.settings import embedded_bundle
from service.workers import choose_workers

BATCHES = (1, 8, 32)
DEFENSES = ("none", "puridefense")


def main(
    rounds: Annotated[int, typer.Option(help="In each, every division has a slice of every kind.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of a slice.")] = 1.0,
    output: Annotated[Path | None, typer.Option(help="Where to write the result as JSON.")] = None,
) -> None:
    """Measures and prints images a second, and their ratio to those of one worker."""
    folder = embedded_bundle()
    size = read_manifest(folder).preprocessing
    contents = [content for content, _ in blots(size.height, size.width)]
    most = choose_workers(None, "cpu").count
    counts = sorted({1, max(1, most // 2), most})
    rates: dict[str, dict[int, list[float]]] = {}
    with ExitStack() as stack:
        divisions = {
            count: stack.enter_context(running_offline(Served(folder, "cpu"), contents, count)) for count in counts
        }
        for _ in range(rounds):
            for defense in DEFENSES:
                for batch in BATCHES:
                    for count, division in divisions.items():
                        _, rate = division.rate(defense, seconds, batch)
                        rates.setdefault(f"{defense}, batch {batch}", {}).setdefault(count, []).append(rate)
    result = {name: {str(count): _figures(found, by[1]) for count, found in by.items()} for name, by in rates.items()}
    told = {"machine": Machine.here().model_dump(), "rounds": rounds, "images_per_second": result}
    text = json.dumps(told, indent=2)
    typer.echo(text)
    if output:
        output.write_text(text + "\n")


def _figures(found: list[float], alone: list[float]) -> dict[str, float]:
    ratios = [one / other for one, other in zip(found, alone, strict=True)]
    return {
        "median": round(median(found), 1),
        "over_one_worker": round(median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
    }


if __name__ == "__main__":
    typer.run(main)
