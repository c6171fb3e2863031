"""Attacks a sample, part by part; parts that have a record are not attacked again."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from evaluation.errors import EvaluationError
from evaluation.images import Sample
from evaluation.oracle import Oracle
from evaluation.provenance import Provenance
from evaluation.records import Cell, Record, read_record, record_path, write_record
from evaluation.target import Target
from evaluation.trial import Trial
from evaluation.verdict import judge

MakeTarget = Callable[[torch.Generator], Target]
Watch = Callable[[Trial], None]


@dataclass(frozen=True)
class Campaign:
    """One cell on one sample.

    Attributes:
        cell: what is done.
        bundle_version: of what is attacked.
        make_target: gives what is attacked; where that is in this process, it draws from the CPU generator.
        device: where the attack runs.
        folder: of the records.
        part: how many images are attacked at once, and share a record.
    """

    cell: Cell
    bundle_version: str
    make_target: MakeTarget
    device: torch.device
    folder: Path
    part: int

    def run(self, sample: Sample, watch: Watch) -> Iterator[Record]:
        """Gives the record of each part, from its file where it is there.

        Args:
            sample: the images.
            watch: shown each trial before it begins.

        Raises:
            EvaluationError: a record is of the same images, but in another tree.
        """
        for begin in range(0, len(sample), self.part):
            images = sample.part(begin, begin + self.part)
            path = record_path(self.folder, self.cell, begin, len(images), images.fingerprint())
            if path.exists():
                yield _read_of(images, path)
                continue
            record = self._attack(images, begin, watch)
            write_record(self.folder, record)
            yield record

    def _attack(self, sample: Sample, begin: int, watch: Watch) -> Record:
        started = time.perf_counter()
        target = self.make_target(seeded(self.cell.seed, f"draws from {begin}", torch.device("cpu")))
        images, labels = sample.images.to(self.device), sample.labels.to(self.device)
        oracle = Oracle(target, len(sample), self.cell.queries)
        trial = Trial(oracle, images, labels, self.cell.ball, self.cell.stopping)
        watch(trial)
        incumbents = self.cell.attack.run(trial, seeded(self.cell.seed, f"attack from {begin}", self.device))
        outcomes = judge(target, trial, trial.hand_in(incumbents), list(sample.indices))
        return Record(
            cell=self.cell,
            bundle_version=self.bundle_version,
            begin=begin,
            data_sha256=sample.fingerprint(),
            tree_sha256=sample.tree_sha256,
            outcomes=tuple(outcomes),
            provenance=Provenance.now(self.device, time.perf_counter() - started),
        )


def _read_of(images: Sample, path: Path) -> Record:
    """The record of these images, which would not merge with further ones if their tree were another now."""
    record = read_record(path)
    same_tree = record.tree_sha256 in {None, images.tree_sha256}
    if record.indices != images.indices or not same_tree:
        raise EvaluationError(f"{path}: of the same images, but in another tree; choose another folder of records")
    return record


def seeded(seed: int, purpose: str, device: torch.device) -> torch.Generator:
    """A generator of its own for each purpose under one seed."""
    digest = hashlib.sha256(f"{seed} {purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
