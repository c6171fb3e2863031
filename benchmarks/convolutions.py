"""Convolutions: how fast a CPU computes them in float32 with fewer multiplications, and whether the same comes out.

    python -m benchmarks.convolutions

Single layers of known networks, and the classifier of a bundle as it is served, both by `models/inference/winograd.py`
and as torch computes them. The two take turns in each of several threads, one thread for each processor by default, as
batches do in the gateway. A ratio is of neighboring calls of one thread.
"""

import copy
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import quantiles
from threading import Barrier
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from benchmarks.machine import Machine
from models.bundle import read_bundle
from models.device import choose_placement
from models.inference.preparation import classifier_for_inference
from models.inference.winograd import WinogradConvolution
from service.settings import embedded_bundle
from service.workers import choose_workers

LAYERS = ((64, 32), (128, 16), (256, 8), (512, 4), (160, 32), (320, 16), (640, 8), (128, 28), (256, 14), (512, 7))
"""Channels and side of the 3x3 convolutions of ResNet-18 and WRN-28-10 at 32x32, and of ResNet-50 at 224x224."""
SEED = 0
MILLI = 1e-3
Network = Callable[[Tensor], Tensor]


def main(
    batches: Annotated[str, typer.Option(help="Images of a call, with commas between.")] = "1,8,16,32",
    rounds: Annotated[int, typer.Option(min=2, help="Calls of each kind, in each thread.")] = 9,
    threads: Annotated[int | None, typer.Option(min=1, help="That call at once; as many as processors.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle; the embedded one by default.")] = None,
) -> None:
    """Prints JSON: ms of a call, and how many times as long torch's own convolution takes, with the quartiles."""
    workers = choose_workers(threads, "cpu")
    torch.set_num_threads(workers.threads)
    torch.manual_seed(SEED)
    served = read_bundle(bundle or embedded_bundle())
    size = served.manifest.preprocessing
    networks: dict[str, tuple[nn.Module, tuple[int, int, int]]] = {
        "classifier": (
            classifier_for_inference(served.classifier, choose_placement("cpu", "float32")),
            (3, size.height, size.width),
        )
    }
    for channels, side in LAYERS:
        layer = nn.Conv2d(channels, channels, 3, padding=1).to(memory_format=torch.channels_last)
        networks[f"{channels} channels, {side} x {side}"] = (WinogradConvolution(layer), (channels, side, side))
    told: dict[str, Any] = {"machine": Machine.here().model_dump(), "threads": workers.count, "rounds": rounds}
    for name, (network, shape) in networks.items():
        for batch in map(int, batches.split(",")):
            told[f"{name}, batch {batch}"] = _compare(network, (batch, *shape), rounds, workers.count)
    typer.echo(json.dumps(told, indent=2))


def with_plain_convolutions(network: nn.Module) -> nn.Module:
    """A copy of a network whose convolutions are torch's own."""
    plain = copy.deepcopy(network)
    if isinstance(plain, WinogradConvolution):
        return _plain(plain)
    for name, module in list(plain.named_modules()):
        if isinstance(module, WinogradConvolution):
            plain.set_submodule(name, _plain(module))
    return plain


def _plain(convolution: WinogradConvolution) -> nn.Conv2d:
    plain = nn.Conv2d(convolution.in_channels, convolution.out_channels, 3, padding=1, device="meta")
    plain.weight, plain.bias = convolution.weight, convolution.bias
    return plain


@torch.inference_mode()
def _compare(network: nn.Module, shape: tuple[int, ...], rounds: int, threads: int) -> dict[str, Any]:
    fewer, plain = network, with_plain_convolutions(network)
    images = torch.rand(shape).contiguous(memory_format=torch.channels_last)
    expected = plain(images)
    error = ((fewer(images) - expected).abs().max() / expected.abs().max()).item()
    begin = Barrier(threads)
    with ThreadPoolExecutor(threads) as pool:
        work = [pool.submit(_pairs, fewer, plain, images, rounds, begin) for _ in range(threads)]
        pairs = [pair for one in work for pair in one.result()]
    low, middle, high = quantiles((other / ours for ours, other in pairs), n=4)
    ours, others = (quantiles((pair[index] / MILLI for pair in pairs), n=4)[1] for index in range(2))
    return {
        "fewer_ms": round(ours, 2),
        "plain_ms": round(others, 2),
        "plain_over_fewer": [round(one, 2) for one in (middle, low, high)],
        "largest_error": error,
    }


@torch.inference_mode()
def _pairs(fewer: Network, plain: Network, images: Tensor, rounds: int, begin: Barrier) -> list[tuple[float, float]]:
    """Seconds of both in each round."""
    begin.wait()
    return [(_seconds(fewer, images), _seconds(plain, images)) for _ in range(rounds)]


def _seconds(network: Network, images: Tensor) -> float:
    start = time.perf_counter()
    network(images)
    return time.perf_counter() - start


if __name__ == "__main__":
    typer.run(main)
