"""Timing: does the time of an answer tell which purifiers were drawn?

    python -m benchmarks.timing

The draws of a query are compared with the time of its purification on the device, and with that of its whole answer
from a real server to a lone client. On the device the pool as it is served, which makes equally many calls whatever was
drawn, takes turns with one that calls each purifier that was drawn once: the leak and the cost of closing it are of one
run.

For each thing that a time could tell (how many different purifiers were drawn; how many patches went to each
architecture; how many to each purifier) a linear fit gives the share of the variance of times that it explains, less
what chance would explain; that in bits of one answer, `-log2(1 - share) / 2`; and how often shuffled times are
explained as well (a permutation test).
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import httpx
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.bodies import noise
from benchmarks.machine import Machine
from benchmarks.server import running_server
from models.bundle import Bundle, read_bundle
from models.defenses.puridefense import PuriDefense
from models.device import choose_placement
from models.inference.preparation import defense_for_inference
from models.pool import PurifierPool
from models.randomness import SeededBytes
from models.recorded.networks import recorded_defense
from models.recorded.replay import Function
from service.settings import embedded_bundle
from service.workers import choose_workers

WARM_UP = 30
PERMUTATIONS = 1000
KEPT = 0.98  # slower ones show what the machine did meanwhile
MILLI = 1e-3
Times = NDArray[np.float64]
Draws = NDArray[np.int64]


class OneCallEach(PurifierPool):
    """The pool without equal numbers of calls: one for each purifier that was drawn."""

    def forward(self, windows: Tensor, draws: Tensor) -> Tensor:
        """As that of the pool."""
        purified = torch.empty_like(windows)
        for index in set(draws.tolist()):
            chosen = draws == index
            purified[chosen] = self.purifiers[index](windows[chosen])
        return purified


@dataclass(frozen=True)
class Timed:
    """Times in seconds `(queries,)` and the draws `(queries, patches)` that they may tell."""

    times: Times
    draws: Draws

    def without_outliers(self) -> "Timed":
        """The fastest `KEPT` of them."""
        kept = self.times < np.quantile(self.times, KEPT)
        return Timed(self.times[kept], self.draws[kept])


def main(
    queries: Annotated[int, typer.Option(help="Timed at batch 1; fewer at 8 and 32.")] = 2000,
    answers: Annotated[int, typer.Option(help="Timed over HTTP, with each quantum.")] = 1000,
    quantum: Annotated[int, typer.Option(help="As --response-time-quantum-ms; 0 is measured too.")] = 50,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle; the embedded one by default.")] = None,
    device: Annotated[str, typer.Option(help="As in 'purigate serve'.")] = "auto",
) -> None:
    """Prints what the times tell."""
    folder = bundle or embedded_bundle()
    served = read_bundle(folder)
    architectures = _architectures(served)
    result: dict[str, Any] = {"machine": Machine.here().model_dump()}
    for batch, count in ((1, queries), (8, queries // 4), (32, queries // 16)):
        timed = _on_device(served, device, count, batch)
        result[f"device_batch_{batch}"] = {name: told(one, architectures) for name, one in timed.items()}
        equal, plain = (np.median(timed[name].times) for name in ("equal_calls", "one_call_each"))
        result[f"device_batch_{batch}"]["cost_ratio"] = round(float(equal / plain), 3)
    for milliseconds in (0, quantum):
        timed_answers = _over_http(folder, device, answers, milliseconds)
        result[f"http_quantum_{milliseconds}_ms"] = told(timed_answers, architectures)
    typer.echo(json.dumps(result, indent=2))


def told(timed: Timed, architectures: Draws) -> dict[str, Any]:
    """What times tell of draws; `architectures` numbers that of each purifier."""
    kept = timed.without_outliers()
    different = np.array([len(set(draw)) for draw in kept.draws.tolist()])
    counts = sorted(set(different.tolist()))
    factors = {
        "different_purifiers": np.stack([different == count for count in counts], axis=1).astype(np.float64),
        "architectures": _tally(architectures[kept.draws]),
        "purifiers": _tally(kept.draws),
    }
    return {
        "queries": len(kept.times),
        "median_ms": round(float(np.median(kept.times)) / MILLI, 3),
        "deviation_ms": round(float(kept.times.std()) / MILLI, 3),
        "ms_by_different_purifiers": {
            count: round(float(kept.times[different == count].mean()) / MILLI, 3) for count in counts
        },
    } | {name: explained(kept.times, factor) for name, factor in factors.items()}


def explained(times: Times, factor: Times) -> dict[str, float]:
    """What a `(queries, columns)` factor explains of `(queries,)` times."""
    centered = factor - factor.mean(axis=0)
    basis, sizes, _ = np.linalg.svd(centered, full_matrices=False)
    basis = basis[:, sizes > sizes[0] * 1e-9]
    deviations = times - times.mean()

    def share(ordered: Times) -> float:
        return float(((basis.T @ ordered) ** 2).sum() / (ordered**2).sum())

    seen, freedom = share(deviations), len(times) - 1
    adjusted = max(0.0, 1 - (1 - seen) * freedom / (freedom - basis.shape[1]))
    generator = np.random.default_rng(0)
    as_well = sum(share(generator.permutation(deviations)) >= seen for _ in range(PERMUTATIONS))
    return {
        "share": round(adjusted, 4),
        "bits": round(-float(np.log2(1 - adjusted)) / 2, 3),
        "chance": round((as_well + 1) / (PERMUTATIONS + 1), 4),
    }


def _tally(draws: Draws) -> Times:
    return np.stack([(draws == index).sum(axis=1) for index in range(draws.max() + 1)], axis=1).astype(np.float64)


def _architectures(served: Bundle) -> Draws:
    names = [purifier.architecture.model_dump_json() for purifier in served.manifest.pool.purifiers]
    return np.array([sorted(set(names)).index(name) for name in names])


@torch.inference_mode()
def _on_device(served: Bundle, device: str, queries: int, batch: int) -> dict[str, Timed]:
    """Times of both kinds of pool under the same draws, in turn; the draws are those of the first query of a batch."""
    size, pool = served.manifest.preprocessing, served.manifest.pool
    equal, plain = (PuriDefense(way(served.purifiers), pool.grid, pool.halo) for way in (PurifierPool, OneCallEach))
    placement = choose_placement(device, "auto")
    torch.set_num_threads(choose_workers(None, placement.device.type).threads)
    defenses: dict[str, Function] = {
        "equal_calls": recorded_defense(equal, placement),
        "one_call_each": defense_for_inference(plain, placement),
    }
    source = SeededBytes(batch, torch.Generator().manual_seed(0))
    images = torch.rand(batch, 3, size.height, size.width, device=placement.device)
    images = images.contiguous(memory_format=torch.channels_last)
    times: dict[str, list[float]] = {name: [] for name in defenses}
    drawn = []
    for number in range(queries + WARM_UP):
        draws = equal.draw(source)
        drawn.append(draws[0].numpy())
        for name in sorted(defenses, reverse=number % 2 == 1):
            begin = time.perf_counter()
            defenses[name](images, draws)
            if placement.device.type == "cuda":
                torch.cuda.synchronize(placement.device)
            times[name].append(time.perf_counter() - begin)
    draws_of_all = np.stack(drawn[WARM_UP:])
    return {name: Timed(np.array(each[WARM_UP:]), draws_of_all) for name, each in times.items()}


def _over_http(bundle: Path, device: str, answers: int, quantum: int) -> Timed:
    """Times that a lone client sees, and the draws that the audit log tells of."""
    contents = noise()
    times: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        audit = Path(folder) / "audit.jsonl"
        flags = ["--bundle", str(bundle), "--device", device, "--audit-file", str(audit)]
        if quantum:
            flags += ["--response-time-quantum-ms", str(quantum)]
        with running_server(*flags) as server, httpx.Client(base_url=server.url, timeout=60) as http:
            for number in range(answers + WARM_UP):
                content, media_type = contents[number % len(contents)]
                begin = time.perf_counter()
                answer = http.post("/classify", content=content, headers={"Content-Type": media_type})
                times[answer.raise_for_status().json()["request_id"]] = time.perf_counter() - begin
        lines = [json.loads(line) for line in audit.read_text().splitlines()][WARM_UP:]
    draws = [[int(number) for number in line["draw"].split(".")] for line in lines]
    return Timed(np.array([times[line["request_id"]] for line in lines]), np.array(draws))


if __name__ == "__main__":
    typer.run(main)
