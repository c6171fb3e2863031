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
from typing import Annotated
from urllib.parse import urlsplit

import typer

from benchmarks.bodies import noise
from benchmarks.machine import Machine
from benchmarks.percentiles import percentile
from benchmarks.server import PURIGATE_SERVE, running_server

CLIENTS = 64
WARM_UP_SECONDS = 5
TIMEOUT_SECONDS = 60
ANSWERED, TOO_BUSY, FAILED = 200, 503, 0
"""The last is no status: the connection broke, or nothing came in time."""
LATE = 1.05
"""Times as long as it should have taken to send all that was offered."""
MILLI = 1e-3
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
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
        self._free: list[Connection] = []

    async def post(self, request: bytes) -> int:
        """Sends a whole request; gives the status of its answer.

        Raises:
            OSError, EOFError: the connection cannot be made, or broke.
        """
        reader, writer = await self._connection()
        stays = False
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            stays = b"connection: close" not in head
        finally:
            if stays:
                self._free.append((reader, writer))
            else:
                writer.close()
        return int(head.split(maxsplit=2)[1])

    async def _connection(self) -> Connection:
        """One that the server has not closed meanwhile."""
        while self._free:
            reader, writer = self._free.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port)

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
    requests = [http_request(content) for content, _ in noise()]
    flags = ("--request-deadline-ms", str(deadline), "--queue-capacity", str(queue_capacity))
    serve = (sys.executable, "-m", "benchmarks.waiting_device") if waiting_device else PURIGATE_SERVE
    with running_server(*flags, serve=serve) as server:
        asyncio.run(measure_peak(server.url, requests, WARM_UP_SECONDS))
        of_peak = count_peak(asyncio.run(measure_peak(server.url, requests, seconds)))
        peak = of_peak[ANSWERED]
        rate = factor * peak / seconds
        begin = time.perf_counter()
        taken, deepest = asyncio.run(send_crowd(server.url, requests, seconds, rate))
    sending = max((end - spent for _, spent, end in taken), default=begin) - begin
    if sending > LATE * seconds:
        typer.echo(f"sending took {sending:.1f} s instead of {seconds:g}: less than {factor:g} peaks came", err=True)
    answered = [spent for status, spent, _ in taken if status == ANSWERED]
    refused = [spent for status, spent, _ in taken if status == TOO_BUSY]
    in_time = [end for status, _, end in taken if status == ANSWERED and end - begin <= seconds]
    result = {
        "machine": Machine.here().model_dump(),
        "device": "waiting" if waiting_device else "auto",
        "peak_per_second": round(peak / seconds, 1),
        "peak_failed": of_peak[FAILED],
        "offered_per_second": round(len(taken) / max(seconds, sending), 1),
        "sending_seconds": round(sending, 1),
        "goodput_over_peak": round(len(in_time) / peak, 3),
        "statuses": Counter(status for status, _, _ in taken),
        "most_unanswered_at_once": deepest,
        "queue_capacity": queue_capacity,
        "refused_p50_ms": _milliseconds(refused, 50),
        "refused_p99_ms": _milliseconds(refused, 99),
        "answered_p50_ms": _milliseconds(answered, 50),
        "answered_p99_ms": _milliseconds(answered, 99),
        "deadline_ms": deadline,
    }
    typer.echo(json.dumps(result, indent=2))


async def measure_peak(url: str, requests: list[bytes], seconds: float) -> Taken:
    """As many answers as the server can give in so many seconds, to clients that wait for each."""
    end = time.perf_counter() + seconds
    taken: Taken = []
    connections = Connections(url)

    async def ask_on(number: int) -> None:
        while time.perf_counter() < end:
            await _ask(connections, requests[number % len(requests)], taken)

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(ask_on(number))
    connections.close()
    return [one for one in taken if one[2] <= end]  # those still under way are none of these seconds


def count_peak(taken: Taken) -> Counter[int]:
    """How many requests of the peak were answered, and how many failed.

    Raises:
        SystemExit: nothing was answered, or something with another status than 200: there is no peak to compare with.
    """
    statuses = Counter(status for status, _, _ in taken)
    if not statuses[ANSWERED] or set(statuses) - {ANSWERED, FAILED}:
        raise SystemExit(
            f"error: there is no peak: {CLIENTS} clients that wait were answered {dict(statuses)} (status: how many) "
            "instead of 200; do they need a key, or the queue more room?"
        )
    return statuses


async def send_crowd(url: str, requests: list[bytes], seconds: float, rate: float) -> tuple[Taken, int]:
    """What came of requests at a fixed rate a second; also how many were unanswered at once."""
    taken: Taken = []
    deepest = 0
    connections = Connections(url)
    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(begin + number / rate - time.perf_counter())
            group.create_task(_ask(connections, requests[number % len(requests)], taken))
            deepest = max(deepest, number + 1 - len(taken))
    connections.close()
    return taken, deepest


async def _ask(connections: Connections, request: bytes, taken: Taken) -> None:
    begin = time.perf_counter()
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            status = await connections.post(request)
    except (OSError, EOFError):  # a timeout is an OSError
        status = FAILED
    end = time.perf_counter()
    taken.append((status, end - begin, end))


def http_request(content: bytes) -> bytes:
    """A request to classify a PNG file, as it goes over the wire."""
    head = (
        f"POST /classify HTTP/1.1\r\nHost: bench\r\nContent-Type: image/png\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _milliseconds(seconds: list[float], percent: int) -> float | None:
    """A percentile, to a tenth; none of fewer than two."""
    found = percentile(seconds, percent)
    return None if found is None else round(found / MILLI, 1)


if __name__ == "__main__":
    typer.run(main)
