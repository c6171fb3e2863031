"""Timing: does the time of a query tell which purifiers it drew?

    python -m benchmarks.timing

Single images under fresh draws, as a lone client would send them; the purification of each is timed. For every purifier
the time of the queries that drew it is compared with that of the others: the greatest difference of means, in standard
errors, against the same under shuffled times (a permutation test). The same is asked of how many different purifiers a
query drew.
"""

import json
import platform
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from models.bundle import Bundle, read_bundle
from models.defenses import build_defense
from models.randomness import SeededBytes
from service.engine import choose_device, choose_precision
from service.settings import embedded_bundle

WARM_UP = 50
PERMUTATIONS = 2000
MILLI = 1e-3
Times = NDArray[np.float64]
Mask = NDArray[np.bool_]


def main(
    queries: Annotated[int, typer.Option(help="How many are timed.")] = 4000,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle; the embedded one by default.")] = None,
    device: Annotated[str, typer.Option(help="As in 'purigate serve'.")] = "auto",
) -> None:
    """Prints the effects and how probable they are by chance."""
    served = read_bundle(bundle or embedded_bundle())
    times, draws = _measure(served, choose_device(device), queries)
    kept = times < np.quantile(times, 0.98)  # what the machine did meanwhile
    times, draws = times[kept], draws[kept]
    names = list(served.purifiers)
    drew = np.stack([(draws == index).any(axis=1) for index in range(len(names))])
    different = np.array([len(set(draw)) for draw in draws.tolist()])
    counts = sorted(set(different.tolist()))
    grouped = np.stack([different == count for count in counts])
    differences = [times[mask].mean() - times[~mask].mean() for mask in drew]
    result = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "queries": len(times),
        "median_ms": round(float(np.median(times)) / MILLI, 3),
        "deviation_ms": round(float(times.std()) / MILLI, 3),
        "purifiers_ms": {name: round(one / MILLI, 4) for name, one in zip(names, differences, strict=True)},
        "purifiers_chance": _chance(times, drew),
        "different_purifiers_ms": {
            count: round(float(times[mask].mean()) / MILLI, 3) for count, mask in zip(counts, grouped, strict=True)
        },
        "different_purifiers_chance": _chance(times, grouped),
    }
    typer.echo(json.dumps(result, indent=2))


@torch.inference_mode()
def _measure(served: Bundle, device: torch.device, queries: int) -> tuple[Times, NDArray[np.int64]]:
    defense = build_defense("puridefense", served).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    size = served.manifest.preprocessing
    source = SeededBytes(1, torch.Generator().manual_seed(0))
    images = torch.rand(1, 3, size.height, size.width, device=device).contiguous(memory_format=torch.channels_last)
    times, drawn = [], []
    with torch.autocast(device.type, torch.bfloat16, enabled=choose_precision("auto", device) == "bfloat16"):
        for _ in range(queries + WARM_UP):
            draws = defense.draw(source)
            begin = time.perf_counter()
            defense(images, draws)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - begin)
            drawn.append(draws[0].numpy())
    return np.array(times[WARM_UP:]), np.stack(drawn[WARM_UP:])


def _chance(times: Times, groups: Mask) -> float:
    """How often shuffled times show a difference between a group and the rest as great as the greatest of these."""
    generator = np.random.default_rng(0)
    seen = _greatest(times, groups)
    as_great = sum(_greatest(generator.permutation(times), groups) >= seen for _ in range(PERMUTATIONS))
    return (as_great + 1) / (PERMUTATIONS + 1)


def _greatest(times: Times, groups: Mask) -> float:
    inside = groups.sum(axis=1)
    means = (groups @ times) / inside
    rest = (times.sum() - groups @ times) / (len(times) - inside)
    errors = times.std() * np.sqrt(1 / inside + 1 / (len(times) - inside))
    return float(np.abs((means - rest) / errors).max())


if __name__ == "__main__":
    typer.run(main)
