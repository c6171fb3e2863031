"""Workers: how a CPU is best divided among batches: many on one processor each, or one at a time on all of them.

    python -m benchmarks.workers

Every division runs the engine of `purigate serve` in a process of its own, as many batches at once as it has workers.
In each round all divisions take turns, while the others wait.
"""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.bodies import blots
from benchmarks.comparison import compare
from benchmarks.machine import Machine
from benchmarks.offline import running_offline
from benchmarks.systems import Served
from models.bundle import read_manifest
from service.settings import embedded_bundle
from service.workers import choose_workers


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
    with ExitStack() as stack:
        divisions = {
            str(count): stack.enter_context(running_offline(Served(folder, "cpu"), contents, count)) for count in counts
        }
        result = compare(divisions, "1", "over_one_worker", rounds, seconds)
    told = {"machine": Machine.here().model_dump(), "rounds": rounds, "images_per_second": result}
    text = json.dumps(told, indent=2)
    typer.echo(text)
    if output:
        output.write_text(text + "\n")


if __name__ == "__main__":
    typer.run(main)
