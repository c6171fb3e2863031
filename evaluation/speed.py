"""How long a pass takes, against the number of purifiers: the pool beside an ensemble and the bare classifier."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt

from evaluation.provenance import Provenance
from evaluation.served import LocalServed
from models.defenses.defense import Defense
from models.defenses.disco import DISCOEnsemble
from models.defenses.none import NoDefense
from models.defenses.puridefense import PuriDefense
from models.randomness import SeededBytes
from models.recorded.networks import recorded_classifier, recorded_defense

BATCHES = (1, 32)


class Timing(BaseModel):
    """One defense at one size.

    Attributes:
        purifiers: K.
        batch: images of a pass.
        median_ms: of a pass, with the quartiles of the rounds beside it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    defense: str
    purifiers: int
    batch: PositiveInt
    median_ms: float
    quartiles_ms: tuple[float, float]


class SpeedRecord(BaseModel):
    """All timings of one run; the rounds went through all of them by turns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    bundle: str
    precision: str
    grid: PositiveInt
    rounds: PositiveInt
    timings: tuple[Timing, ...]
    provenance: Provenance


class Pass:
    """A defense and a classifier on a batch, ready to be timed."""

    def __init__(self, served: LocalServed, defense: Defense, batch: int, seed: int) -> None:
        self.classifier = recorded_classifier(served.bundle.classifier, served.placement)
        self.defense = defense
        self.purify = recorded_defense(defense, served.placement)
        self.device = served.placement.device
        size = served.bundle.manifest.preprocessing
        images = torch.rand(batch, 3, size.height, size.width, device=served.placement.device)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.bytes = SeededBytes(batch, torch.Generator().manual_seed(seed))
        self.seconds: list[float] = []

    @torch.inference_mode()
    def time(self) -> None:
        """One pass, draws and all, to its end on the device."""
        begin = time.perf_counter()
        self.classifier(self.purify(self.images, self.defense.draw(self.bytes)))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds.append(time.perf_counter() - begin)

    def timing(self, purifiers: int) -> Timing:
        """What the rounds came to, but for the first, which warms up."""
        rounds = [1000 * second for second in self.seconds[1:]]
        low, _, high = quantiles(rounds, n=4)
        return Timing(
            defense=self.defense.name,
            purifiers=purifiers,
            batch=len(self.images),
            median_ms=median(rounds),
            quartiles_ms=(low, high),
        )


def measure_speed(served: LocalServed, rounds: int, seed: int) -> SpeedRecord:
    """Times the bare classifier, and the pool and the ensemble for K from 1 to all purifiers, in batches of 1 and 32.

    Args:
        served: the bundle, its device and precision.
        rounds: of each, at least 3; all take turns, so that what else the machine does hits all alike.
        seed: of the draws.
    """
    started = time.perf_counter()
    passes = [(size, Pass(served, defense, batch, seed)) for batch in BATCHES for size, defense in _defenses(served)]
    for _ in range(rounds + 1):
        for _, one in passes:
            one.time()
    manifest = served.bundle.manifest
    return SpeedRecord(
        bundle=f"{manifest.name} {manifest.version}",
        precision=served.placement.precision,
        grid=manifest.pool.grid,
        rounds=rounds,
        timings=tuple(one.timing(size) for size, one in passes),
        provenance=Provenance.now(served.placement.device, time.perf_counter() - started),
    )


def _defenses(served: LocalServed) -> Iterator[tuple[int, Defense]]:
    names = tuple(served.bundle.purifiers)
    yield 0, NoDefense()
    for size in range(1, len(names) + 1):
        yield size, served.defense(PuriDefense.name, pool=names[:size])
        yield size, DISCOEnsemble(served.bundle.purifiers[name] for name in names[:size])


def write_speed(folder: Path, record: SpeedRecord) -> Path:
    """Writes a record into `folder/speed`, named by its bundle, device and precision."""
    (folder / "speed").mkdir(parents=True, exist_ok=True)
    words = f"{record.bundle} {record.provenance.device} {record.precision}"
    path = folder / "speed" / f"{'-'.join(words.replace(',', '').replace('/', '-').split())}.json"
    path.write_text(record.model_dump_json(indent=1) + "\n")
    return path


def read_speed(folders: Iterable[Path]) -> list[SpeedRecord]:
    """The records of `speed` in each of some folders; none if there are none."""
    paths = [path for folder in folders for path in sorted((folder / "speed").glob("*.json"))]
    return [SpeedRecord.model_validate_json(path.read_bytes()) for path in paths]
