"""Profile: where the processor time of a request goes, beside the floors of what the networks do.

    python -m benchmarks.profile [--checkout FOLDER] [--flags "--networks processes"]

The gateway is loaded in slices of a few seconds, by turns with that of another checkout, if there is one. Processor
time is the kernel's count for every thread; the rest of a slice, in which no processor of ours worked, is idle. On a
CPU.
"""

import json
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.bodies import Body, blots
from benchmarks.client import Client, Target, running_client
from benchmarks.floors import Rates, defended_work, undefended_work
from benchmarks.machine import Machine
from benchmarks.neighbors import Neighbors
from benchmarks.server import RunningServer, running_server
from benchmarks.systems import Served
from benchmarks.thread_times import ThreadTimes
from models.bundle import read_bundle
from service.settings import embedded_bundle

MILLI = 1e-3
QUERIES, BATCHES = "purigate_batch_size_sum", "purigate_batch_size_count"
HERE, THERE = "this checkout", "other checkout"


def main(
    *,
    defense: Annotated[str, typer.Option(help="'none' or 'puridefense'.")] = "none",
    flags: Annotated[str, typer.Option(help="Of 'purigate serve', in this checkout.")] = "",
    checkout: Annotated[Path | None, typer.Option(help="Folder of another version, to take turns with.")] = None,
    checkout_flags: Annotated[str, typer.Option(help="Of 'purigate serve' there.")] = "",
    connections: Annotated[int, typer.Option(min=1)] = 64,
    rounds: Annotated[int, typer.Option(min=1)] = 4,
    seconds: Annotated[float, typer.Option(help="Of a slice.")] = 3,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle; the embedded one by default.")] = None,
) -> None:
    """Prints JSON: milliseconds of processor time an image, by who spends it; medians, the least and the most."""
    folder = bundle or embedded_bundle()
    served = read_bundle(folder)
    rates = Rates.measured()
    work = undefended_work(served) if defense == "none" else defended_work(served)
    checkouts = {HERE: (None, flags)} | ({THERE: (checkout, checkout_flags)} if checkout else {})
    size = served.manifest.preprocessing
    load = Load(tuple(blots(size.height, size.width)), connections, seconds)
    slices: dict[str, list[Spending]] = {name: [] for name in checkouts}
    with ExitStack() as stack:
        client = stack.enter_context(running_client())
        servers = {
            name: stack.enter_context(_gateway(folder, where, ("--defense", defense, *shlex.split(given))))
            for name, (where, given) in checkouts.items()
        }
        for turn in range(rounds):
            for name in list(servers)[:: 1 if turn % 2 else -1]:
                slices[name].append(_spend(servers[name], client, load))
    told: dict[str, Any] = {
        "machine": Machine.here().model_dump(),
        "defense": defense,
        "connections": connections,
        "rounds": rounds,
        "gigaflops_of_a_thread": round(rates.gigaflops, 1),
        "gigabytes_of_a_thread": round(rates.gigabytes, 1),
    }
    for name, taken in slices.items():
        batch = median(one.mean_batch for one in taken)
        floors = {what: round(ms, 2) for what, ms in work.floors_ms(rates, batch).items()}
        told[name] = {"flags": checkouts[name][1]} | _summary(taken) | {"floors_ms": floors}
    typer.echo(json.dumps(told, indent=2))


@dataclass(frozen=True)
class Load:
    """What a slice asks: so many connections send the bodies by turns for so long."""

    bodies: tuple[Body, ...]
    connections: int
    seconds: float


@dataclass(frozen=True)
class Spending:
    """What a slice of load cost; times in milliseconds of processor time an image.

    Attributes:
        images_per_second: that were classified.
        mean_batch: images that went through the networks together.
        event_loop: HTTP, the body, the answer and its log line.
        threads: decoding, and the networks where they are threads.
        processes: the networks where they are processes.
        client: of the load, which shares the processors.
        idle: of our processors while nobody worked.
    """

    images_per_second: float
    mean_batch: float
    event_loop: float
    threads: float
    processes: float
    client: float
    idle: float


@contextmanager
def _gateway(bundle: Path, checkout: Path | None, flags: tuple[str, ...]) -> Iterator[RunningServer]:
    """Asleep but in its turn; the modules are those of the checkout."""
    environment = dict(Served(bundle, "cpu").environment())
    if checkout:
        environment["PYTHONPATH"] = str(checkout.resolve())
    with running_server(*flags, environment=environment) as server:
        server.sleep()
        yield server


def _spend(server: RunningServer, client: Client, load: Load) -> Spending:
    target = Target(f"{server.url}/classify", load.bodies)
    server.wake()
    client.load(target, load.connections, MILLI, 0)  # the first requests after a pause are slower
    counted, before, begin, neighbors = server.metrics(), ThreadTimes.of(server.pid), time.monotonic(), Neighbors()
    taken = client.load(target, load.connections, load.seconds, 0)
    others = neighbors.cores()
    passed, spent, now = time.monotonic() - begin, ThreadTimes.of(server.pid).since(before), server.metrics()
    server.sleep()
    images, batches = (now[name] - counted.get(name, 0) for name in (QUERIES, BATCHES))
    client_seconds = (taken.client_ms or 0) * MILLI * images
    idle = passed * (len(os.sched_getaffinity(0)) - others) - spent.total - client_seconds

    def each(total: float) -> float:
        return total / images / MILLI

    return Spending(
        images_per_second=images / passed,
        mean_batch=images / batches,
        event_loop=each(spent.event_loop),
        threads=each(spent.threads),
        processes=each(spent.processes),
        client=each(client_seconds),
        idle=each(idle),
    )


def _summary(taken: list[Spending]) -> dict[str, list[float]]:
    """The median of each figure, the least and the most."""
    told = {}
    for name in Spending.__dataclass_fields__:
        values = [getattr(one, name) for one in taken]
        told[name] = [round(one, 2) for one in (median(values), min(values), max(values))]
    return told


if __name__ == "__main__":
    typer.run(main)
