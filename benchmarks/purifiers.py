"""What each purifier costs beside the classifier: equal times are what keeps a draw secret.

    python -m benchmarks.purifiers

All networks take turns in one run; times are medians over the rounds, in bfloat16 where the CPU computes it natively.
FLOPs are two for a multiplication and its addition, on whole images; the windows of the bundle's patch grid cost `work`
times that.
"""

import statistics
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.bundle import read_bundle
from models.device import choose_precision
from models.patches import PatchGrid
from service.settings import embedded_bundle

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
    patches = PatchGrid(size.height, size.width, pool.grid, pool.halo)
    images = torch.rand(batch, 3, size.height, size.width).contiguous(memory_format=torch.channels_last)
    windows = patches.split(images).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    inputs: dict[str, tuple[nn.Module, Tensor]] = {"classifier": (served.classifier, images)}
    inputs |= {name: (purifier, windows) for name, purifier in served.purifiers.items()}
    for network, _ in inputs.values():
        network.to(memory_format=torch.channels_last)
    reduced = choose_precision("auto", torch.device("cpu")) == "bfloat16"
    times: dict[str, list[float]] = {name: [] for name in inputs}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=reduced):
        for _ in range(rounds + 1):
            for name, (network, tensor) in inputs.items():
                begin = time.perf_counter()
                network(tensor)
                times[name].append(time.perf_counter() - begin)
    whole = statistics.median(times["classifier"][1:])
    work = len(windows) * windows[0].numel() / images.numel()
    typer.echo(f"batch {batch}, grid {pool.grid}, halo {pool.halo}, work {work:.2f}, bfloat16 {reduced}\n")
    typer.echo("| network | GFLOP an image | ms an image | of the classifier |\n| --- | --- | --- | --- |")
    for name, (network, _) in inputs.items():
        seconds = statistics.median(times[name][1:])
        cells = (name, _flops(network, images) / batch / GIGA, seconds / batch / MILLI, seconds / whole)
        typer.echo("| {} | {:.3f} | {:.3f} | {:.3f} |".format(*cells))


def _flops(network: nn.Module, images: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images)
    return int(counter.get_total_flops())


if __name__ == "__main__":
    typer.run(main)
