"""Load: many clients at once against a real server; throughput, latency, memory and where the time goes.

    python -m benchmarks.load --clients 200 --seconds 60

Clients and server share the machine, so the throughput is that of both together.
"""

import asyncio
import io
import json
import os
import platform
import ssl
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import quantiles
from typing import Annotated

import httpx
import numpy as np
import torch
import typer
from PIL import Image

from benchmarks.server import RunningServer, running_server

IMAGES = 64
PERCENTILES = 100
MEDIAN, HIGH = 49, 98
STAGES = ("decode", "queue", "purify", "classify")
SEED = 0


@dataclass
class Tally:
    """What the clients saw."""

    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Result:
    """One measurement; latencies in milliseconds, memory in mebibytes, shares of all stage time."""

    machine: str
    processors: int
    torch: str
    defense: str
    clients: int
    seconds: float
    answered: int
    failed: int
    queries_per_second: float
    p50_ms: float
    p99_ms: float
    mean_batch: float
    stage_shares: dict[str, float]
    seconds_to_ready: float
    memory_after_warm_up: float
    memory_at_end: float


def main(
    clients: Annotated[
        int, typer.Option(help="Clients at once; each sends its next image after its last answer.")
    ] = 200,
    seconds: Annotated[float, typer.Option(help="Length of the measurement.")] = 60,
    warm_up: Annotated[float, typer.Option(help="Seconds of the same load before it.")] = 10,
    defense: Annotated[str, typer.Option(help="As in 'purigate serve'.")] = "puridefense",
    images: Annotated[Path | None, typer.Option(help="Folder of images to send; else noise of 32x32 as PNG.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where to write the result as JSON.")] = None,
) -> None:
    """Loads a server and prints what came of it."""
    bodies = _read(images) if images else noise()
    with running_server("--defense", defense) as server:
        asyncio.run(_load(server.url, bodies, clients, warm_up))
        memory, before = server.resident_mebibytes(), server.metrics()
        begin = time.monotonic()
        tally = asyncio.run(_load(server.url, bodies, clients, seconds))
        result = _result(server, tally, before, time.monotonic() - begin, memory, clients, defense)
    text = json.dumps(asdict(result), indent=2)
    typer.echo(text)
    for failure in sorted(set(tally.failures)):
        typer.echo(f"failure: {failure}", err=True)
    if output:
        output.write_text(text + "\n")


def noise() -> list[tuple[bytes, str]]:
    """Images of noise with their media type, the same every time."""
    generator = np.random.default_rng(SEED)
    bodies = []
    for pixels in generator.integers(0, 256, (IMAGES, 32, 32, 3), np.uint8):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        bodies.append((file.getvalue(), "image/png"))
    return bodies


def _read(folder: Path) -> list[tuple[bytes, str]]:
    types = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
    files = sorted(path for path in folder.rglob("*") if path.suffix in types)
    return [(path.read_bytes(), types[path.suffix]) for path in files]


async def _load(url: str, bodies: list[tuple[bytes, str]], clients: int, seconds: float) -> Tally:
    tally = Tally()
    deadline = time.monotonic() + seconds
    turns = cycle(bodies)
    tls = ssl.create_default_context()  # made once: 200 of them would take longer than the load
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(_client(url, tls, turns, deadline, tally))
    return tally


async def _client(
    url: str, tls: ssl.SSLContext, turns: Iterator[tuple[bytes, str]], deadline: float, tally: Tally
) -> None:
    """One client with a connection of its own; a pool shared by hundreds of clients would be the bottleneck."""
    async with httpx.AsyncClient(base_url=url, timeout=60, verify=tls) as http:
        while time.monotonic() < deadline:
            await _ask(http, *next(turns), tally)


async def _ask(http: httpx.AsyncClient, content: bytes, media_type: str, tally: Tally) -> None:
    begin = time.perf_counter()
    try:
        answer = await http.post("/classify", content=content, headers={"Content-Type": media_type})
    except httpx.TransportError as error:
        tally.failures.append(repr(error))
        return
    if answer.is_success:
        tally.latencies.append(time.perf_counter() - begin)
    else:
        tally.failures.append(f"{answer.status_code} {answer.json()['title']}")


def _result(
    server: RunningServer,
    tally: Tally,
    before: dict[str, float],
    seconds: float,
    memory: float,
    clients: int,
    defense: str,
) -> Result:
    after = server.metrics()
    cuts = quantiles(tally.latencies, n=PERCENTILES)

    def spent(name: str) -> float:
        return after[name] - before.get(name, 0)

    stages = {stage: spent(f'purigate_stage_duration_seconds_sum{{stage="{stage}"}}') for stage in STAGES}
    return Result(
        machine=platform.processor() or platform.machine(),
        processors=len(os.sched_getaffinity(0)),
        torch=torch.__version__,
        defense=defense,
        clients=clients,
        seconds=round(seconds, 1),
        answered=len(tally.latencies),
        failed=len(tally.failures),
        queries_per_second=round(len(tally.latencies) / seconds, 1),
        p50_ms=round(1000 * cuts[MEDIAN], 1),
        p99_ms=round(1000 * cuts[HIGH], 1),
        mean_batch=round(spent("purigate_batch_size_sum") / spent("purigate_batch_size_count"), 1),
        stage_shares={stage: round(time_spent / sum(stages.values()), 3) for stage, time_spent in stages.items()},
        seconds_to_ready=round(server.seconds_to_ready, 1),
        memory_after_warm_up=round(memory),
        memory_at_end=round(server.resident_mebibytes()),
    )


if __name__ == "__main__":
    typer.run(main)
