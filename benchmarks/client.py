"""The client: many connections, each of which asks again as soon as it is answered, in a process of its own.

It shares the processors with the server, so it does little: one event loop, connections that stay, bodies made before.
"""

import asyncio
import json
import multiprocessing
import resource
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle

import aiohttp
import uvloop

from benchmarks.slices import Answer, Slice

TIMEOUT = aiohttp.ClientTimeout(total=60)
OK = 200
Told = tuple[int, float]
"""The index of the best class, and its score."""


@dataclass(frozen=True)
class Target:
    """Where to ask, and what.

    Attributes:
        url: that takes the bodies by POST.
        bodies: each with its media type; sent in turn.
    """

    url: str
    bodies: tuple[tuple[bytes, str], ...]


class Client:
    """Asks from another process.

    Args:
        processes: of one worker.
    """

    def __init__(self, processes: ProcessPoolExecutor) -> None:
        self._processes = processes

    def load(self, target: Target, connections: int, seconds: float, warm_up: float) -> Slice:
        """Keeps so many connections busy.

        Args:
            target: what is asked.
            connections: of which each has one request under way.
            seconds: of the slice; it is longer where fewer requests than `connections` were finished by then.
            warm_up: seconds of the same load before the slice; it is longer likewise.
        """
        return self._processes.submit(_load, target, connections, seconds, warm_up).result()

    def told(self, target: Target, connections: int) -> list[Told | None]:
        """What is answered to each body, so many at a time; none for a failure, an answer other than 200 or none."""
        return self._processes.submit(_told, target, connections).result()


@contextmanager
def running_client() -> Iterator[Client]:
    """A client whose process ends with the context."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        yield Client(processes)


def _load(target: Target, connections: int, seconds: float, warm_up: float) -> Slice:
    return uvloop.run(_Load(target, connections, seconds, warm_up).run())


def _told(target: Target, connections: int) -> list[Told | None]:
    return uvloop.run(_ask_each(target, connections))


class _Load:
    def __init__(self, target: Target, connections: int, seconds: float, warm_up: float) -> None:
        self._target = target
        self._connections = connections
        self._seconds = seconds
        self._warm_up = warm_up
        self._turns = cycle(target.bodies)
        self._finished = 0
        self._answers: list[Answer] = []
        self._failed: Counter[str] = Counter()
        self._begin = self._end = 0.0
        self._finished_before = 0

    async def run(self) -> Slice:
        used = _processor_seconds()
        self._started = time.perf_counter()
        async with _session(self._connections) as session, asyncio.TaskGroup() as group:
            for _ in range(self._connections):
                group.create_task(self._ask_on(session))
        client = (_processor_seconds() - used) / self._finished
        return Slice.of(self._answers, self._begin, self._end, self._connections, dict(self._failed), client)

    async def _ask_on(self, session: aiohttp.ClientSession) -> None:
        while not self._over(time.perf_counter()):
            content, media_type = next(self._turns)
            begin = time.perf_counter()
            try:
                failure = await self._ask(session, content, media_type)
            except (aiohttp.ClientError, TimeoutError) as error:
                failure = type(error).__name__
            end = time.perf_counter()
            self._finished += 1
            if failure:
                self._failed[failure] += 1
            else:
                self._answers.append((end, end - begin))

    async def _ask(self, session: aiohttp.ClientSession, content: bytes, media_type: str) -> str:
        async with session.post(self._target.url, data=content, headers={"Content-Type": media_type}) as response:
            await response.read()
            return "" if response.status == OK else str(response.status)

    def _over(self, now: float) -> bool:
        """Whether the slice is over; begins it when the warm-up is, and ends it."""
        if self._end:
            return True
        enough = self._finished >= self._finished_before + self._connections
        if not self._begin:
            if enough and now >= self._started + self._warm_up:
                self._begin, self._finished_before = now, self._finished
        elif enough and now >= self._begin + self._seconds:
            self._end = now
        return bool(self._end)


async def _ask_each(target: Target, connections: int) -> list[Told | None]:
    turn = asyncio.Semaphore(connections)

    async def ask(session: aiohttp.ClientSession, content: bytes, media_type: str) -> Told | None:
        headers = {"Content-Type": media_type}
        try:
            async with turn, session.post(target.url, data=content, headers=headers) as response:
                if response.status != OK:
                    return None
                answer = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError):
            return None
        return answer["index"], answer["scores"][0]["score"]

    async with _session(connections) as session:
        return await asyncio.gather(*(ask(session, *body) for body in target.bodies))


def _session(connections: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections), timeout=TIMEOUT)


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
