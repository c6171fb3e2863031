"""What each purifier costs beside the classifier: equal times are what keeps a draw secret.

    python -m benchmarks.purifiers

All networks take turns in one run, on as many threads as a worker of the service has; times are medians over the
rounds, in bfloat16 where the CPU computes it natively, and those of purifiers are of a whole pass over the windows of
the bundle's patch grid. FLOPs are two for a multiplication and its addition, on whole images, without the halo.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.bundle import read_bundle
from models.defenses.puridefense import PuriDefense
from models.device import choose_placement
from models.inference.preparation import classifier_for_inference, defense_for_inference
from models.pool import PurifierPool
from service.settings import embedded_bundle
from service.workers import choose_workers

GIGA = 1e9
MILLI = 1e-3


def main(
    rounds: Annotated[int, typer.Option(help="How often each network is timed.")] = 30,
    batch: Annotated[int, typer.Option(help="Images of one call.")] = 32,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle; the embedded one by default.")] = None,
) -> None:
    """Prints a Markdown table."""
    served = read_bundle(bundle or embedded_bundle())
    size, pool = served.manifest.preprocessing, served.manifest.pool
    placement = choose_placement("cpu", "auto")
    torch.set_num_threads(choose_workers(None, placement.device.type).threads)
    images = torch.rand(batch, 3, size.height, size.width).contiguous(memory_format=torch.channels_last)
    classifier = classifier_for_inference(served.classifier, placement)
    passes: dict[str, Callable[[], Tensor]] = {"classifier": lambda: classifier(images)}
    draws = torch.zeros(batch, pool.grid**2, dtype=torch.int64)
    for name, purifier in served.purifiers.items():
        alone = PuriDefense(PurifierPool({name: purifier}), pool.grid, pool.halo)
        passes[name] = partial(defense_for_inference(alone, placement), images, draws)
    times: dict[str, list[float]] = {name: [] for name in passes}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for name, whole_pass in passes.items():
                begin = time.perf_counter()
                whole_pass()
                times[name].append(time.perf_counter() - begin)
    whole = statistics.median(times["classifier"][1:])
    typer.echo(f"batch {batch}, grid {pool.grid}, halo {pool.halo}, {placement.precision}\n")
    typer.echo("| network | GFLOP an image | ms an image | of the classifier |\n| --- | --- | --- | --- |")
    networks: dict[str, nn.Module] = {"classifier": served.classifier, **served.purifiers}
    for name, network in networks.items():
        seconds = statistics.median(times[name][1:])
        cells = (name, _flops(network, images) / batch / GIGA, seconds / batch / MILLI, seconds / whole)
        typer.echo("| {} | {:.3f} | {:.3f} | {:.3f} |".format(*cells))


def _flops(network: nn.Module, images: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images)
    return int(counter.get_total_flops())


if __name__ == "__main__":
    typer.run(main)
