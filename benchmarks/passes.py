"""The pass: what the defense takes of a batch on the device, by the number of purifiers.

Measured by the gateway's own account of its stages, on its own engine, of whose workers one works; each batch draws
anew. Of a pool of one there is one for each architecture, since their purifiers do not cost quite the same; what counts
is their mean.
"""

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from models.bundle import Manifest, read_manifest
from models.bundle.manifest import MANIFEST_FILE
from models.bundle.writer import write_manifest
from models.preprocessing import Pixels
from service.loading import load_engine
from service.metrics import Metrics
from service.settings import Settings

SIZES = (1, 2, 4, 8, 12)
BATCHES = (1, 32)
CALLS = {1: 8, 32: 1}
"""Of each batch in a round: short ones are repeated, so that a round means something."""
MILLI = 1e-3
SEED = 0


class Pass(BaseModel):
    """Of one pool at one batch size, the mean of each round.

    Attributes:
        device: `cpu` or `cuda`.
        purifiers: in the pool; 0 for the bare classifier.
        batch: images that are classified together.
        pass_ms: what the defense took of a batch.
        whole_ms: from pixels to scores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    purifiers: NonNegativeInt
    batch: PositiveInt
    pass_ms: tuple[float, ...]
    whole_ms: tuple[float, ...]


def measure_passes(bundle: Path, device: str, rounds: int, precision: str = "auto") -> tuple[Pass, ...]:
    """All pools at all batch sizes take turns in each round, in a process of their own.

    Args:
        bundle: its folder.
        device: `cpu` or `cuda`.
        rounds: that are measured, after one that warms up.
        precision: as in 'purigate serve'.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        return processes.submit(_measure, bundle, device, rounds, precision).result()


def pool_devices(device: str) -> tuple[str, ...]:
    """Where passes are measured: on the device that is named; on the CPU, and on CUDA if it is there, if none is."""
    if device != "auto":
        return (device,)
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def _measure(bundle: Path, device: str, rounds: int, precision: str) -> tuple[Pass, ...]:
    with TemporaryDirectory() as folder:
        pools = list(_pools(bundle, Path(folder), device, precision))
    for round_number in range(rounds + 1):
        for pool in pools if round_number % 2 else reversed(pools):
            pool.run()
    return tuple(_pass(pools, device, size, batch) for size in sorted({one.size for one in pools}) for batch in BATCHES)


def _pass(pools: Sequence["_Pool"], device: str, size: int, batch: int) -> Pass:
    same = [pool.times[batch][1:] for pool in pools if pool.size == size]

    def means(column: int) -> tuple[float, ...]:
        return tuple(mean(times[column] for times in rounds) / MILLI for rounds in zip(*same, strict=True))

    return Pass(device=device, purifiers=size, batch=batch, pass_ms=means(0), whole_ms=means(1))


class _Pool:
    """An engine that knows some of the purifiers.

    Args:
        settings: of the engine.
        size: how many they are.
    """

    def __init__(self, settings: Settings, size: int) -> None:
        self.size = size
        self.times: dict[int, list[tuple[float, float]]] = {batch: [] for batch in BATCHES}
        self._metrics = Metrics()
        self._engine = load_engine(settings, self._metrics)
        self._engine.warm_up()
        self._images = _images(self._engine.manifest)

    def run(self) -> None:
        """Times a few batches of each size."""
        for batch in BATCHES:
            calls = CALLS[batch]
            spent, begin = self._spent(), time.perf_counter()
            for _ in range(calls):
                self._engine.classify(self._images[:batch])
            whole = time.perf_counter() - begin
            self.times[batch].append(((self._spent() - spent) / batch / calls, whole / calls))

    def _spent(self) -> float:
        """So far; each query of a batch counts all of the batch's time."""
        name, labels = "purigate_stage_duration_seconds_sum", {"stage": "purify"}
        return self._metrics.registry.get_sample_value(name, labels) or 0.0


def _pools(bundle: Path, folder: Path, device: str, precision: str) -> Iterator[_Pool]:
    settings = Settings(bundle=bundle, device=device, precision=precision, max_batch=max(BATCHES))
    manifest = read_manifest(bundle)
    names = [entry.name for entry in manifest.pool.purifiers]
    each = {entry.architecture.model_dump_json(): entry.name for entry in manifest.pool.purifiers}
    sizes = [size for size in SIZES if 1 < size < len(names)] + [len(names)] * (len(names) > 1)
    for number, chosen in enumerate([[name] for name in each.values()] + [names[:size] for size in sizes]):
        smaller = folder / str(number)
        write_smaller(bundle, smaller, chosen)
        defended = settings.model_copy(update={"bundle": smaller, "defense": "puridefense"})
        yield _Pool(defended, len(chosen))
    yield _Pool(settings.model_copy(update={"defense": "none"}), 0)


def write_smaller(bundle: Path, folder: Path, chosen: Sequence[str]) -> None:
    """Makes a bundle in `folder` that has the chosen purifiers only; its files are links to those of `bundle`."""
    manifest = read_manifest(bundle)
    entries = tuple(entry for entry in manifest.pool.purifiers if entry.name in chosen)
    pool = manifest.pool.model_copy(update={"purifiers": entries})
    folder.mkdir()
    for file in bundle.iterdir():
        if file.name != MANIFEST_FILE:
            (folder / file.name).symlink_to(file.resolve())
    write_manifest(folder, manifest.model_copy(update={"pool": pool}))


def _images(manifest: Manifest) -> list[Pixels]:
    size = manifest.preprocessing
    generator = np.random.default_rng(SEED)
    return list(generator.integers(0, 256, (max(BATCHES), size.height, size.width, 3), np.uint8))
