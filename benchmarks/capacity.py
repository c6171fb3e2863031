"""Capacity: steps of Locust's users until a threshold breaks, then the latencies at shares of that.

    python -m benchmarks.capacity

Gateway and load have a core each, so that they do not take time from one another; both are on one machine. Linux only.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.machine import Machine
from benchmarks.server import running_server

LOADTEST = Path(__file__).parents[1] / "loadtest"
SHARES = (0.5, 0.8, 1.0, 2.0)
STEP_PACE_SECONDS = 1
PACE_SECONDS = 4
Row = dict[str, str]


def main(
    first_users: Annotated[int, typer.Option(help="Of the first step; each asks once a second.")] = 20,
    more_users: Annotated[int, typer.Option(help="That each step adds.")] = 10,
    step_seconds: Annotated[float, typer.Option(help="Length of a step.")] = 10,
    seconds: Annotated[int, typer.Option(help="Length of each run at a share of the capacity.")] = 30,
    max_p99_ms: Annotated[float, typer.Option(help="A step that is slower is over the capacity.")] = 1000,
    server_core: Annotated[int | None, typer.Option(help="Of the gateway; by default the first we may use.")] = None,
    client_core: Annotated[int | None, typer.Option(help="Of Locust; by default the second.")] = None,
) -> None:
    """Prints the capacity, and what clients see at shares of it."""
    server_core = core(0) if server_core is None else server_core
    client_core = core(1) if client_core is None else client_core
    machine = Machine.here().model_dump()  # before one processor is chosen
    os.sched_setaffinity(0, {server_core})  # the gateway inherits it
    with running_server() as server, tempfile.TemporaryDirectory() as folder:
        os.sched_setaffinity(0, {client_core})
        load = Load(server.url, Path(folder))
        steps = load.steps(first_users, more_users, step_seconds, max_p99_ms)
        capacity = max((float(step["answered_per_second"]) for step in steps if not step["broken"]), default=0.0)
        runs = [load.share(share, capacity, seconds) for share in SHARES] if capacity else []
    result = {"machine": machine, "steps": steps, "requests_per_second": capacity, "runs": runs}
    typer.echo(json.dumps(result, indent=2))


def core(place: int) -> int:
    """The number of one of the processors that this process may use.

    Raises:
        typer.BadParameter: there are not so many.
    """
    ours = sorted(os.sched_getaffinity(0))
    if place >= len(ours):
        raise typer.BadParameter("gateway and load need a processor each; there is one")
    return ours[place]


class Load:
    """Runs Locust against a gateway.

    Args:
        url: of the gateway.
        folder: for reports.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._prefix = folder / "run"

    def steps(self, first_users: int, more_users: int, step_seconds: float, max_p99_ms: float) -> list[Row]:
        """The rows of a run in steps."""
        shape = ("--first-users", first_users, "--more-users", more_users, "--step-seconds", step_seconds)
        self._run("step.py", *shape, "--max-p99-ms", max_p99_ms, "--pace-seconds", STEP_PACE_SECONDS)
        return self._rows("steps")

    def share(self, share: float, capacity: float, seconds: int) -> Row:
        """What came of a run at a share of the capacity, of many patient users: late answers do not thin it out."""
        users = round(share * capacity * PACE_SECONDS)
        pace = ("--users", users, "--spawn-rate", users, "--pace-seconds", PACE_SECONDS)
        self._run("soak.py", *pace, "--minute-seconds", seconds, "--run-time", f"{seconds}s", "--allow-refused")
        (part,) = self._rows("minutes")
        return {"share": f"{share:g}", **part}

    def _run(self, file: str, *arguments: object) -> None:
        locust = str(Path(sys.executable).with_name("locust"))
        command = [locust, "-f", str(LOADTEST / file), "--headless", "--loglevel", "WARNING", "--host", self._url]
        subprocess.run(  # noqa: S603 - our own command; a broken threshold is a result here
            [*command, "--csv", str(self._prefix), *map(str, arguments)], check=False, stdout=subprocess.DEVNULL
        )

    def _rows(self, what: str) -> list[Row]:
        path = Path(f"{self._prefix}_{what}.csv")
        with path.open() as file:
            rows = list(csv.DictReader(file))
        path.unlink()  # a run that fails writes none, and must not be told by that before it
        return rows


if __name__ == "__main__":
    typer.run(main)
