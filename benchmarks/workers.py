"""Workers: how a device is best divided among batches: a CPU in many on one processor each, or one at a time on all.

    python -m benchmarks.workers [--device cuda --counts 1,2 --batches 32,256]

Every division runs the engine of `purigate serve` in a process of its own, as many batches at once as it has workers.
In each round all divisions take turns, while the others wait. On a GPU a second worker prepares its batch while that of
the first is computed.
"""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.bodies import blots
from benchmarks.comparison import BATCHES, compare
from benchmarks.machine import Machine
from benchmarks.offline import running_offline
from benchmarks.systems import Served
from models.bundle import read_manifest
from models.device import PlacementError, choose_device
from service.settings import embedded_bundle
from service.workers import choose_workers


def main(
    *,
    device: Annotated[str, typer.Option(help="As in 'purigate serve'.")] = "auto",
    counts: Annotated[
        str | None, typer.Option(help="Of workers, with commas between; by default one, half of them, and all.")
    ] = None,
    batches: Annotated[str, typer.Option(help="Images of a batch, with commas between.")] = ",".join(map(str, BATCHES)),
    rounds: Annotated[int, typer.Option(min=1, help="In each, every division has a slice of every kind.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.01, help="Length of a slice.")] = 1.0,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle; the embedded one by default.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where to write the result as JSON.")] = None,
) -> None:
    """Measures and prints images a second, and their ratio to those of the fewest workers."""
    try:
        kind = choose_device(device).type
    except PlacementError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from error
    divided = _numbers(counts, "--counts") if counts else _usual_counts(kind)
    sizes = _numbers(batches, "--batches")
    folder = bundle or embedded_bundle()
    size = read_manifest(folder).preprocessing
    contents = [content for content, _ in blots(size.height, size.width)]
    served = Served(folder, device, max_batch=sizes[-1])
    with ExitStack() as stack:
        divisions = {str(count): stack.enter_context(running_offline(served, contents, count)) for count in divided}
        fewest = str(divided[0])
        result = compare(divisions, fewest, f"over_{fewest}", rounds, seconds, sizes)
    told = {"machine": Machine.here().model_dump(), "device": kind, "rounds": rounds, "images_per_second": result}
    text = json.dumps(told, indent=2)
    typer.echo(text)
    if output:
        output.write_text(text + "\n")


def _usual_counts(device_type: str) -> list[int]:
    """On a GPU, where one is the default, a second one beside it."""
    most = choose_workers(None, device_type).count
    return sorted({1, max(1, most // 2), most}) if device_type == "cpu" else [1, 2]


def _numbers(text: str, option: str) -> list[int]:
    """In rising order.

    Raises:
        typer.BadParameter: they are no numbers above 0.
    """
    try:
        numbers = sorted({int(number) for number in text.split(",")})
    except ValueError as error:
        raise typer.BadParameter(f"{text} is no list such as 1,2,4", param_hint=option) from error
    if numbers[0] < 1:
        raise typer.BadParameter(f"{text} has to be of numbers above 0", param_hint=option)
    return numbers


if __name__ == "__main__":
    typer.run(main)
