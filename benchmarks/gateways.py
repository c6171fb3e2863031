"""Several gateways before one device: what they answer together, against one that has its networks itself.

    python -m benchmarks.gateways --device cuda --counts 1,2,4,8 --connections 512

All run from the beginning, and idle but in their turn. A round gives one turn to the gateway with networks of its own,
and one to each number of gateways that share those of a `purigate networks`; every other round goes backwards. There
are as many clients as gateways, processes too, each with its part of the connections to one gateway of the turn. It
prints a Markdown table; ratios are of turns of one round.

`--waiting` has networks of `benchmarks.waiting_networks` instead: on any machine it shows what there would be on a GPU,
but for what the GPU itself does.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.bodies import noise
from benchmarks.client import Client, Target, running_client
from benchmarks.machine import Machine
from benchmarks.ratios import spread
from benchmarks.server import PURIGATE_SERVE, RunningServer, peak_mebibytes, running_process, running_server
from benchmarks.table import with_spread

WARM_UP_SECONDS = 0.5
PURIGATE_NETWORKS = (PURIGATE_SERVE[0], "networks")
WAITING_SERVE, WAITING_HOST = (
    (sys.executable, "-m", "benchmarks.waiting_networks", what) for what in ("serve", "host")
)
ALONE = 0
"""The turn of the gateway with networks of its own."""


def main(
    *,
    device: Annotated[str, typer.Option(help="'auto', 'cpu', 'cuda' or 'cuda:N'.")] = "auto",
    defense: Annotated[str, typer.Option(help="What stands before the classifier.")] = "puridefense",
    waiting: Annotated[bool, typer.Option("--waiting", help="Networks that wait as long as those of a GPU.")] = False,
    counts: Annotated[
        str, typer.Option(help="Numbers of gateways, with commas between; each divides the largest.")
    ] = "1,2,4",
    connections: Annotated[int, typer.Option(min=1, help="Of all clients together.")] = 64,
    max_batch: Annotated[int, typer.Option(min=1, help="As --max-batch.")] = 32,
    rounds: Annotated[int, typer.Option(min=1)] = 4,
    seconds: Annotated[float, typer.Option(help="Of each turn.")] = 2,
) -> None:
    """Prints the setting as one JSON line, and the table."""
    turns = [ALONE, *read_counts(counts)]
    flags = ("--defense", defense, "--max-batch", str(max_batch))
    serve, hold = (WAITING_SERVE, WAITING_HOST) if waiting else (PURIGATE_SERVE, PURIGATE_NETWORKS)
    with ExitStack() as stack:
        socket, holder = stack.enter_context(_running_host(hold, "--device", device, *flags))
        alone = stack.enter_context(running_server("--device", device, *flags, serve=serve))
        shared = ("--networks", "shared", "--networks-socket", str(socket), *flags)
        gateways = [stack.enter_context(running_server(*shared)) for _ in range(turns[-1])]
        asking = [stack.enter_context(running_client()) for _ in range(turns[-1])]
        rates: list[dict[int, float]] = []
        for number in range(rounds):
            order = turns if number % 2 == 0 else turns[::-1]
            asked = {count: gateways[:count] if count else [alone] for count in order}
            rates.append({count: _rate(asking, asked[count], connections, seconds) for count in order})
        memory = {
            "alone": alone.peak_mebibytes(),
            "gateways": sum(one.peak_mebibytes() for one in gateways),
            "networks": peak_mebibytes(holder),
        }
    setting = {
        "command": " ".join(["python -m benchmarks.gateways", *sys.argv[1:]]),
        "machine": Machine.here().model_dump(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "peak_mebibytes": {name: round(peak) for name, peak in memory.items()},
    }
    typer.echo(json.dumps(setting))
    typer.echo("| gateways | answered a second | over one with networks of its own |\n| --- | --- | --- |")
    for count in turns:
        name = f"{count}, sharing networks" if count else "1, networks of its own"
        ratios = [one[count] / one[ALONE] for one in rates]
        typer.echo(
            f"| {name} | {with_spread(spread([one[count] for one in rates]), 0)} | {with_spread(spread(ratios), 2)} |"
        )


def read_counts(text: str) -> list[int]:
    """In their order.

    Raises:
        typer.BadParameter: they are no numbers, or one does not divide the largest, so that gateways would have
            different numbers of clients.
    """
    try:
        counts = sorted({int(count) for count in text.split(",")})
    except ValueError as error:
        raise typer.BadParameter(f"{text} is no list such as 1,2,4", param_hint="--counts") from error
    if counts[0] < 1 or any(counts[-1] % count for count in counts):
        raise typer.BadParameter(f"each of {text} has to divide the largest", param_hint="--counts")
    return counts


@contextmanager
def _running_host(hold: Sequence[str], *flags: str) -> Iterator[tuple[Path, int]]:
    """A process that holds networks; gives its socket, at which it may not listen yet, and its session."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "networks.sock"
        with running_process([*hold, "--networks-socket", str(socket), *flags]) as process:
            yield socket, process.pid


def _rate(clients: Sequence[Client], servers: Sequence[RunningServer], connections: int, seconds: float) -> float:
    """Answers a second of all servers together, asked at once.

    Raises:
        RuntimeError: a request was not answered 200.
    """
    bodies = tuple(noise())

    def load(client: Client, server: RunningServer) -> float:
        target = Target(f"{server.url}/classify", bodies)
        taken = client.load(target, max(1, connections // len(clients)), seconds, WARM_UP_SECONDS)
        if taken.failed:
            raise RuntimeError(f"requests failed: {taken.failed}")
        return taken.per_second

    with ThreadPoolExecutor(len(clients)) as threads:
        return sum(threads.map(load, clients, cycle(servers)))


if __name__ == "__main__":
    typer.run(main)
