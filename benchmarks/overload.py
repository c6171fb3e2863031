"""Overload: twice the load that the server can carry; what is answered, how fast the rest is refused.

    python -m benchmarks.overload --seconds 60

First as many clients as keep the device busy ask one after another: the peak. Then requests come at twice that rate,
whether or not the earlier ones were answered, as from a crowd. The clients are a process of their own on bare
connections, since they share the machine with the server.

Where the device is the processor, refusals and clients take from it what the networks need. `--waiting-device` shows
the goodput where it is not, as with a GPU.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from statistics import quantiles
from typing import Annotated
from urllib.parse import urlsplit

import typer

from benchmarks.bodies import noise
from benchmarks.machine import Machine
from benchmarks.server import PURIGATE_SERVE, running_server

PERCENTILES = 100
MEDIAN, HIGH = 49, 98
CLIENTS = 64
WARM_UP_SECONDS = 5
ANSWERED, TOO_BUSY = 200, 503
Taken = list[tuple[int, float, float]]
"""Of each request: the status, the seconds it took, and the point in time of its answer."""


class Connections:
    """Keeps connections alive and makes more as they are needed; says no more HTTP than it must.

    Args:
        url: of the server.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, request: bytes) -> int:
        """Sends a whole request; gives the status of its answer."""
        reader, writer = self._free.pop() if self._free else await asyncio.open_connection(self._host, self._port)
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        if b"connection: close" in head:
            writer.close()
        else:
            self._free.append((reader, writer))
        return int(head.split(maxsplit=2)[1])

    def close(self) -> None:
        """Closes those that nobody uses."""
        for _, writer in self._free:
            writer.close()


def main(
    *,
    seconds: Annotated[float, typer.Option(help="Length of each of the two parts.")] = 60,
    factor: Annotated[float, typer.Option(help="How many times the peak is offered.")] = 2,
    deadline: Annotated[int, typer.Option(help="As --request-deadline-ms.")] = 10_000,
    waiting_device: Annotated[
        bool,
        typer.Option("--waiting-device", help="Serve with benchmarks.waiting_device: a device that is no processor."),
    ] = False,
    queue_capacity: Annotated[int, typer.Option(help="As --queue-capacity; what fills in a part of the time.")] = 256,
) -> None:
    """Prints what came of both parts."""
    requests = [_request(content) for content, _ in noise()]
    flags = ("--request-deadline-ms", str(deadline), "--queue-capacity", str(queue_capacity))
    serve = (sys.executable, "-m", "benchmarks.waiting_device") if waiting_device else PURIGATE_SERVE
    with running_server(*flags, serve=serve) as server:
        asyncio.run(_peak(server.url, requests, WARM_UP_SECONDS))
        peak = asyncio.run(_peak(server.url, requests, seconds))
        rate = factor * len(peak) / seconds
        begin = time.perf_counter()
        taken, deepest = asyncio.run(_crowd(server.url, requests, seconds, rate))
    answered = [spent for status, spent, _ in taken if status == ANSWERED]
    refused = [spent for status, spent, _ in taken if status == TOO_BUSY]
    in_time = [end for status, _, end in taken if status == ANSWERED and end - begin <= seconds]
    result = {
        "machine": Machine.here().model_dump(),
        "device": "waiting" if waiting_device else "auto",
        "peak_per_second": round(len(peak) / seconds, 1),
        "offered_per_second": round(len(taken) / seconds, 1),
        "goodput_over_peak": round(len(in_time) / len(peak), 3),
        "statuses": Counter(status for status, _, _ in taken),
        "most_unanswered_at_once": deepest,
        "queue_capacity": queue_capacity,
        "refused_p50_ms": _percentile(refused, MEDIAN),
        "refused_p99_ms": _percentile(refused, HIGH),
        "answered_p50_ms": _percentile(answered, MEDIAN),
        "answered_p99_ms": _percentile(answered, HIGH),
        "deadline_ms": deadline,
    }
    typer.echo(json.dumps(result, indent=2))


async def _peak(url: str, requests: list[bytes], seconds: float) -> Taken:
    """As many answers as the server can give, by clients that wait for each."""
    end = time.monotonic() + seconds
    taken: Taken = []
    connections = Connections(url)

    async def ask_on(number: int) -> None:
        while time.monotonic() < end:
            await _ask(connections, requests[number % len(requests)], taken)

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(ask_on(number))
    connections.close()
    return [one for one in taken if one[0] == ANSWERED]


async def _crowd(url: str, requests: list[bytes], seconds: float, rate: float) -> tuple[Taken, int]:
    """Requests at a fixed rate; also how many were unanswered at once."""
    taken: Taken = []
    deepest = 0
    connections = Connections(url)
    begin = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(begin + number / rate - time.monotonic())
            group.create_task(_ask(connections, requests[number % len(requests)], taken))
            deepest = max(deepest, number + 1 - len(taken))
    connections.close()
    return taken, deepest


async def _ask(connections: Connections, request: bytes, taken: Taken) -> None:
    begin = time.perf_counter()
    status = await connections.post(request)
    end = time.perf_counter()
    taken.append((status, end - begin, end))


def _request(content: bytes) -> bytes:
    head = (
        f"POST /classify HTTP/1.1\r\nHost: bench\r\nContent-Type: image/png\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _percentile(seconds: list[float], which: int) -> float | None:
    return round(1000 * quantiles(seconds, n=PERCENTILES)[which], 1) if len(seconds) > 1 else None


if __name__ == "__main__":
    typer.run(main)
