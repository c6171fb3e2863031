"""The same load for a long time, judged minute by minute: locust -f loadtest/soak.py --headless --users 50 -t 2h."""

import logging
from typing import Any

from locust import LoadTestShape, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest.stages import Stage, Stages
from loadtest.thresholds import judge
from loadtest.users import Attacker, Client

__all__ = ["Attacker", "Client", "Soak"]

log = logging.getLogger(__name__)


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--minute-seconds", type=float, default=60, help="Length of a part that is judged by itself. Default 60"
    )


class Soak(LoadTestShape):
    """Keeps `--users` for `--run-time`, to the end of its last minute; ends at the first that breaks a threshold.

    A mean over hours would hide the one in which the gateway began to slow down.
    """

    abstract = False
    use_common_options = True
    stages: Stages | None = None

    def tick(self) -> tuple[int, float] | None:
        """How many users there are; none at the end."""
        assert self.runner
        options = self.runner.environment.parsed_options
        assert options
        users = options.num_users or 1
        if self.stages is None:
            self.stages = Stages(self.runner.environment)
        if self.stages.seconds >= options.minute_seconds:
            stage = self.stages.finish(users)
            log.info("soak: %s", stage.told())
            if stage.broken or self.get_run_time() >= (options.run_time or 0):
                return None
        return users, users


@events.quitting.add_listener
def _report(environment: Environment, **_: Any) -> None:
    shape = environment.shape_class
    if isinstance(shape, Soak) and shape.stages:
        shape.stages.write("minutes")
        finished = shape.stages.finished
        judge(environment, [reason for stage in finished for reason in stage.broken] or _unless_long_enough(finished))


def _unless_long_enough(finished: list[Stage]) -> list[str]:
    return [] if finished else ["it ended before its first minute was over"]
