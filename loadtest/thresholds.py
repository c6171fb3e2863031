"""What a run must keep to pass, given on the command line or in the environment; the verdict is the exit code."""

import logging
from dataclasses import dataclass
from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import WorkerRunner

from loadtest.tally import Tally

log = logging.getLogger(__name__)

PASSED, BROKEN = 0, 1


@dataclass(frozen=True)
class Thresholds:
    """What is still good.

    Attributes:
        max_p99_ms: the most that the slowest 1 % may take.
        max_error_rate: the most failures, as a share of the requests.
    """

    max_p99_ms: float
    max_error_rate: float

    @classmethod
    def of(cls, environment: Environment) -> "Thresholds":
        """Those that were given."""
        options = environment.parsed_options
        assert options
        return cls(options.max_p99_ms, options.max_error_rate)

    def broken_by(self, tally: Tally) -> list[str]:
        """What of them `tally` breaks, in words; nothing was answered is broken too."""
        p99 = tally.percentile(99)
        broken = []
        if not tally.answered:
            broken.append("nothing was answered")
        if p99 > self.max_p99_ms:
            broken.append(f"p99 is {p99} ms, more than {self.max_p99_ms:g} ms")
        if tally.error_rate > self.max_error_rate:
            broken.append(f"{tally.error_rate:.2%} failed, more than {self.max_error_rate:.2%}")
        return broken


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--max-p99-ms",
        type=float,
        default=2000,
        env_var="PURIGATE_LOADTEST_MAX_P99_MS",
        help="Exit with 1 if the slowest 1 %% take longer. Default 2000",
    )
    parser.add_argument(
        "--max-error-rate",
        type=float,
        default=0.01,
        env_var="PURIGATE_LOADTEST_MAX_ERROR_RATE",
        help="Exit with 1 if a larger share fails. Default 0.01",
    )


def judge(environment: Environment, broken: list[str]) -> None:
    """Lets the exit code say whether the run passed, and the log why not; an exception in our own code stands."""
    if isinstance(environment.runner, WorkerRunner) or (environment.runner and environment.runner.exceptions):
        return
    for reason in broken:
        log.error("broken: %s", reason)
    environment.process_exit_code = BROKEN if broken else PASSED


def judge_all(environment: Environment, **_: Any) -> None:
    """Judges a whole run; for `events.quitting`."""
    judge(environment, Thresholds.of(environment).broken_by(Tally.of(environment.stats)))
