"""A run in stages, each of which is judged by itself."""

import csv
import time
from dataclasses import dataclass
from pathlib import Path

from locust.env import Environment

from loadtest.tally import Tally
from loadtest.thresholds import Thresholds

COLUMNS = ("users", "seconds", "answered_per_second", "refused_per_second", "error_rate", "p50_ms", "p99_ms", "broken")


@dataclass(frozen=True)
class Stage:
    """A part of a run with a constant number of users.

    Attributes:
        users: how many.
        seconds: how long.
        tally: what came of their requests.
        broken: the thresholds that it broke, in words.
    """

    users: int
    seconds: float
    tally: Tally
    broken: list[str]

    @property
    def answered_per_second(self) -> float:
        """Requests that got what they asked for."""
        return self.tally.answered / self.seconds

    def row(self) -> tuple[str, ...]:
        """As `COLUMNS` has it."""
        return (
            f"{self.users}",
            f"{self.seconds:.1f}",
            f"{self.answered_per_second:.1f}",
            f"{self.tally.refused / self.seconds:.1f}",
            f"{self.tally.error_rate:.4f}",
            f"{self.tally.percentile(50)}",
            f"{self.tally.percentile(99)}",
            "; ".join(self.broken),
        )

    def told(self) -> str:
        """As a line of a log."""
        return ", ".join(f"{name} {value}" for name, value in zip(COLUMNS, self.row(), strict=True))


class Stages:
    """The stages of a run, one after another.

    Args:
        environment: of the run.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._limits = Thresholds.of(environment)
        self.finished: list[Stage] = []
        self._begin()

    @property
    def seconds(self) -> float:
        """How long the present stage has lasted."""
        return time.monotonic() - self._since

    def finish(self, users: int) -> Stage:
        """Judges the present stage, during which there were `users`, and begins the next."""
        tally = Tally.of(self._environment.stats).since(self._before)
        stage = Stage(users, self.seconds, tally, self._limits.broken_by(tally))
        self.finished.append(stage)
        self._begin()
        return stage

    def write(self, suffix: str) -> None:
        """Writes the stages beside Locust's own CSV files, if those were asked for."""
        options = self._environment.parsed_options
        if options and options.csv_prefix:
            with Path(f"{options.csv_prefix}_{suffix}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([COLUMNS, *(stage.row() for stage in self.finished)])

    def _begin(self) -> None:
        self._before = Tally.of(self._environment.stats)
        self._since = time.monotonic()
