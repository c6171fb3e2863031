"""The record of a run: everything that was measured, as JSON with numbers as numbers."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from benchmarks.machine import Machine
from benchmarks.offline import Computing
from benchmarks.passes import Pass
from benchmarks.ratios import Figure
from benchmarks.slices import Slice


class Part(BaseModel):
    """A part of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Plan(Part):
    """How it was measured.

    Attributes:
        rounds: in each of which every system has a slice.
        seconds: of a slice.
        warm_up: seconds of the same load before it.
        connections: that each wait for an answer.
        pass_rounds: in each of which every pool purifies every batch; 0 if none is measured.
        bodies: what is sent, in words.
        seed: of the images.
    """

    rounds: PositiveInt
    seconds: PositiveFloat
    warm_up: NonNegativeFloat
    connections: PositiveInt
    pass_rounds: NonNegativeInt
    bodies: str
    seed: int


class Series(Part):
    """One system.

    Attributes:
        name: of the system.
        flags: of its command.
        seconds_to_ready: from the start of the process to the first image answered.
        peak_mebibytes: of memory, over its processes.
        agreement: the share of images of which a bare classifier says what the engine says offline.
        mean_batch: queries that went through the networks together; where the server tells.
        stages: milliseconds of a query in each stage; where the server tells.
        slices: one a round.
    """

    name: str
    flags: tuple[str, ...] = ()
    seconds_to_ready: NonNegativeFloat | None = None
    peak_mebibytes: NonNegativeFloat | None = None
    agreement: NonNegativeFloat | None = None
    mean_batch: NonNegativeFloat | None = None
    stages: dict[str, NonNegativeFloat] = {}
    slices: tuple[Slice, ...]

    @property
    def failures(self) -> int:
        """Requests that were not answered 200."""
        return sum(sum(one.failed.values()) for one in self.slices)


class Trial(Part):
    """One of the settings that were tried for a system, before the run."""

    name: str
    flags: tuple[str, ...]
    slices: tuple[Slice, ...]
    chosen: bool


class Record(Part):
    """A run.

    Attributes:
        figures: what was to be shown: ratios, each with its spread and its goal.
        absent: systems that are not installed.
    """

    format: Literal[1] = 1
    machine: Machine
    computing: Computing
    plan: Plan
    figures: tuple[Figure, ...] = ()
    series: tuple[Series, ...] = ()
    passes: tuple[Pass, ...] = ()
    trials: tuple[Trial, ...] = ()
    absent: tuple[str, ...] = ()
    seconds: NonNegativeInt = 0

    @classmethod
    def read(cls, path: Path) -> "Record":
        """What was written.

        Raises:
            pydantic.ValidationError: it is no record.
        """
        return cls.model_validate_json(path.read_bytes())

    def write(self, path: Path) -> None:
        """Writes it as JSON."""
        path.write_text(self.model_dump_json(indent=1) + "\n")
