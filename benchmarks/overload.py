"""Overload: twice the load that the server can carry; what is answered, how fast the rest is refused.

    python -m benchmarks.overload --seconds 60

First as many clients as keep the device busy ask one after another: the peak. Then requests come at twice that rate
whether or not the earlier ones were answered, as from a crowd. Clients and server share the machine.
"""

import asyncio
import json
import os
import platform
import time
from statistics import quantiles
from typing import Annotated

import httpx
import torch
import typer

from benchmarks.load import noise
from benchmarks.server import running_server

PERCENTILES = 100
MEDIAN, HIGH = 49, 98
CLIENTS = 64
ANSWERED, TOO_BUSY = 200, 503
Taken = list[tuple[int, float, float]]
"""Of each request: the status, the seconds it took, and the point in time of its answer."""


def main(
    seconds: Annotated[float, typer.Option(help="Length of each of the two parts.")] = 60,
    factor: Annotated[float, typer.Option(help="How many times the peak is offered.")] = 2,
    deadline: Annotated[int, typer.Option(help="As --request-deadline-ms.")] = 10_000,
) -> None:
    """Prints what came of both parts."""
    bodies = [content for content, _ in noise()]
    with running_server("--request-deadline-ms", str(deadline)) as server:
        asyncio.run(_peak(server.url, bodies, 5))
        peak = asyncio.run(_peak(server.url, bodies, seconds))
        rate = factor * len(peak) / seconds
        begin = time.perf_counter()
        taken = asyncio.run(_crowd(server.url, bodies, seconds, rate))
    answered = [spent for status, spent, _ in taken if status == ANSWERED]
    refused = [spent for status, spent, _ in taken if status == TOO_BUSY]
    in_time = [end for status, _, end in taken if status == ANSWERED and end - begin <= seconds]
    result = {
        "machine": platform.processor() or platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "peak_per_second": round(len(peak) / seconds, 1),
        "offered_per_second": round(len(taken) / seconds, 1),
        "goodput_over_peak": round(len(in_time) / len(peak), 3),
        "refused": len(refused),
        "others": len(taken) - len(answered) - len(refused),
        "refused_p50_ms": _percentile(refused, MEDIAN),
        "answered_p99_ms": _percentile(answered, HIGH),
        "deadline_ms": deadline,
    }
    typer.echo(json.dumps(result, indent=2))


async def _peak(url: str, bodies: list[bytes], seconds: float) -> Taken:
    """As many answers as the server can give, by clients that wait for each."""
    end = time.monotonic() + seconds
    taken: Taken = []

    async def ask_on(http: httpx.AsyncClient, number: int) -> None:
        while time.monotonic() < end:
            await _ask(http, bodies[number % len(bodies)], taken)

    async with _client(url) as http, asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(ask_on(http, number))
    return [one for one in taken if one[0] == ANSWERED]


async def _crowd(url: str, bodies: list[bytes], seconds: float, rate: float) -> Taken:
    """Requests at a fixed rate."""
    taken: Taken = []
    begin = time.monotonic()
    async with _client(url) as http, asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(begin + number / rate - time.monotonic())
            group.create_task(_ask(http, bodies[number % len(bodies)], taken))
    return taken


async def _ask(http: httpx.AsyncClient, content: bytes, taken: Taken) -> None:
    begin = time.perf_counter()
    answer = await http.post("/classify", content=content, headers={"Content-Type": "image/png"})
    end = time.perf_counter()
    taken.append((answer.status_code, end - begin, end))


def _client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=None))


def _percentile(seconds: list[float], which: int) -> float | None:
    return round(1000 * quantiles(seconds, n=PERCENTILES)[which], 1) if len(seconds) > 1 else None


if __name__ == "__main__":
    typer.run(main)
