"""More and more users until a threshold breaks: locust -f loadtest/step.py --headless."""

import logging
from typing import Any

from locust import LoadTestShape, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest.stages import Stages
from loadtest.thresholds import judge
from loadtest.users import Attacker, Client

__all__ = ["Attacker", "Client", "Step"]

log = logging.getLogger(__name__)


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--first-users", type=int, default=20, help="Users of the first step. Default 20")
    parser.add_argument("--more-users", type=int, default=20, help="Users that each step adds. Default 20")
    parser.add_argument("--most-users", type=int, default=2000, help="Users of the last step. Default 2000")
    parser.add_argument("--step-seconds", type=float, default=20, help="Length of a step. Default 20")
    parser.add_argument(
        "--min-capacity",
        type=float,
        default=0,
        env_var="PURIGATE_LOADTEST_MIN_CAPACITY",
        help="Exit with 1 if fewer requests a second are answered within the thresholds. Default 0: any step will do",
    )


class Step(LoadTestShape):
    """Adds users step by step, and ends at the first step that breaks a threshold."""

    abstract = False
    stages: Stages | None = None

    def tick(self) -> tuple[int, float] | None:
        """How many users there are now, and how many more a second; none at the end."""
        assert self.runner
        options = self.runner.environment.parsed_options
        assert options
        if self.stages is None:
            self.stages = Stages(self.runner.environment)
        done = len(self.stages.finished)
        users = options.first_users + done * options.more_users
        if self.stages.seconds >= options.step_seconds:
            stage = self.stages.finish(users)
            log.info("step: %s", stage.told())
            users += options.more_users
            if stage.broken or users > options.most_users:
                return None
        return users, users

    def capacity(self) -> float:
        """The most requests a second that a step answered within the thresholds."""
        good = [stage for stage in (self.stages.finished if self.stages else ()) if not stage.broken]
        return max((stage.answered_per_second for stage in good), default=0.0)


@events.quitting.add_listener
def _report(environment: Environment, **_: Any) -> None:
    shape = environment.shape_class
    if isinstance(shape, Step) and shape.stages and environment.parsed_options:
        shape.stages.write("steps")
        least: float = environment.parsed_options.min_capacity
        capacity = shape.capacity()
        log.info("capacity: %.1f requests a second", capacity)
        if capacity == 0:
            judge(environment, ["no step held the thresholds: begin with fewer --first-users"])
        else:
            small = f"the capacity is {capacity:.1f} requests a second, less than {least:g}"
            judge(environment, [small] if capacity < least else [])
