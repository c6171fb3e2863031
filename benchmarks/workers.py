"""Workers: how a CPU is best divided among batches: many on one processor each, or one at a time on all of them.

    python -m benchmarks.workers

Every division runs the engine of `purigate serve` in a process of its own, as many batches at once as it has workers.
In each round all divisions take turns, while the others wait.
"""

import json
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing.managers import BaseManager
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer

from service.engine import Engine
from service.loading import load_engine
from service.metrics import Metrics
from service.settings import Settings
from service.workers import choose_workers

BATCHES = (1, 8, 32)
DEFENSES = ("none", "puridefense")
SEED = 0


class Division:
    """One way to divide the machine; its process holds one engine for each defense.

    Args:
        workers: batches at once.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._engines: dict[str, Engine] = {}

    def rate(self, defense: str, batch: int, seconds: float) -> float:
        """Images a second that all workers classify together."""
        engine = self._engine(defense)
        size = engine.manifest.preprocessing
        shape = (batch, size.height, size.width, 3)
        images = list(np.random.default_rng(SEED).integers(0, 256, shape, np.uint8))
        together = threading.Barrier(self._workers)

        def work(_number: int) -> tuple[int, float]:
            engine.classify(images)
            together.wait()
            done, begin = 0, time.perf_counter()
            while time.perf_counter() < begin + seconds:
                done += len(engine.classify(images))
            return done, time.perf_counter() - begin

        with ThreadPoolExecutor(self._workers) as threads:
            return sum(done / took for done, took in threads.map(work, range(self._workers)))

    def _engine(self, defense: str) -> Engine:
        if defense not in self._engines:
            self._engines[defense] = load_engine(
                Settings(defense=defense, workers=self._workers, device="cpu"), Metrics()
            )
            self._engines[defense].warm_up()
        return self._engines[defense]


class _Process(BaseManager):
    """Holds a division."""


_Process.register("Division", Division)


def main(
    rounds: Annotated[int, typer.Option(help="In each, every division has a slice of every kind.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of a slice.")] = 1.0,
    output: Annotated[Path | None, typer.Option(help="Where to write the result as JSON.")] = None,
) -> None:
    """Measures and prints images a second, and their ratio to those of one worker."""
    most = choose_workers(None, "cpu").count
    counts = sorted({1, max(1, most // 2), most})
    rates: dict[str, dict[int, list[float]]] = {}
    with ExitStack() as stack:
        divisions = {count: _division(stack.enter_context(_process()), count) for count in counts}
        for _ in range(rounds):
            for defense in DEFENSES:
                for batch in BATCHES:
                    for count, division in divisions.items():
                        rate = division.rate(defense, batch, seconds)
                        rates.setdefault(f"{defense}, batch {batch}", {}).setdefault(count, []).append(rate)
    result = {name: {str(count): _figures(found, by[1]) for count, found in by.items()} for name, by in rates.items()}
    text = json.dumps({"torch": torch.__version__, "rounds": rounds, "images_per_second": result}, indent=2)
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


def _process() -> _Process:
    return _Process(ctx=multiprocessing.get_context("spawn"))


def _division(process: _Process, workers: int) -> Division:
    return process.Division(workers)  # type: ignore[attr-defined, no-any-return]  # registered above


if __name__ == "__main__":
    typer.run(main)
