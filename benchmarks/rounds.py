"""Turns: every system does a slice in each round, while all others sleep, so that noise hits all alike."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx

from benchmarks.bodies import Body
from benchmarks.client import Client, Target, Told
from benchmarks.neighbors import Neighbors
from benchmarks.offline import Expected
from benchmarks.server import RunningServer, running_server
from benchmarks.slices import Slice
from benchmarks.systems import Served, System

SCORE_TOLERANCE = 0.02
"""How far the same network's scores may be apart in another batch: bfloat16 rounds to 0.004, in every layer."""


@dataclass(frozen=True)
class Serving:
    """A system whose server runs, asleep except in `awake`."""

    system: System
    server: RunningServer
    target: Target

    @contextmanager
    def awake(self) -> Iterator["Serving"]:
        """Lets it run meanwhile."""
        self.server.wake()
        try:
            yield self
        finally:
            self.server.sleep()

    def load(self, client: Client, connections: int, seconds: float, warm_up: float) -> Slice:
        """A slice of load."""
        with self.awake():
            return client.load(self.target, connections, seconds, warm_up)

    def agreement(self, client: Client, connections: int, expected: Sequence[Expected]) -> float:
        """The share of the bodies of which it says what is expected."""
        with self.awake():
            told = client.told(self.target, connections)
        return sum(map(agree, told, expected)) / len(expected)


@contextmanager
def serving(systems: Sequence[System], served: Served, bodies: list[Body]) -> Iterator[list[Serving]]:
    """Starts one server after the other, each when those before it sleep.

    A server is ready when it has answered an image.

    Raises:
        RuntimeError: one was not ready in time.
    """
    with ExitStack() as stack:
        started = []
        for system in systems:
            sent, media_type = system.target("", bodies).bodies[0]

            def ready(http: httpx.Client, path: str = system.path, body: bytes = sent, kind: str = media_type) -> bool:
                return http.post(path, content=body, headers={"Content-Type": kind}).is_success

            running = running_server(*system.flags, serve=system.command, ready=ready, environment=served.environment())
            server = stack.enter_context(running)
            server.sleep()
            started.append(Serving(system, server, system.target(server.url, bodies)))
        yield started


def take_turns(
    measures: Mapping[str, Callable[[], Slice]], rounds: int, on_slice: Callable[[str, Slice], None]
) -> dict[str, tuple[Slice, ...]]:
    """The slices of each measure; every other round goes backwards, so that no measure is always the first.

    Args:
        measures: by name; each takes one slice.
        rounds: how many slices each takes.
        on_slice: told of each slice.
    """
    slices: dict[str, list[Slice]] = {name: [] for name in measures}
    for number in range(rounds):
        for name in list(measures)[:: 1 if number % 2 == 0 else -1]:
            neighbors = Neighbors()
            taken = measures[name]()
            slices[name].append(taken.model_copy(update={"others": neighbors.cores()}))
            on_slice(name, slices[name][-1])
    return {name: tuple(taken) for name, taken in slices.items()}


def agree(told: Told | None, expected: Expected) -> bool:
    """Whether both say the same; another class is the same where the two best are so close that either may be."""
    if told is None:
        return False
    (index, score), (right, sure, next_best) = told, expected
    return abs(score - sure) <= SCORE_TOLERANCE and (index == right or sure - next_best <= SCORE_TOLERANCE)
