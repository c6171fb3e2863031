"""The peak and the crowd, against a small server."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from benchmarks.overload import Connections, count_peak, http_request, measure_peak, send_crowd

if TYPE_CHECKING:
    from tests.benchmarks.conftest import TinyServer

    Start = Callable[[Callable[[int], int]], TinyServer]

REQUESTS = [http_request(b"image")]


def slow(_number: int) -> int:
    time.sleep(0.3)
    return 200


async def test_the_peak_counts_what_was_answered_in_its_time(tiny: "Start") -> None:
    server = tiny(lambda _number: 200)
    taken = await measure_peak(server.url, REQUESTS, 0.5)
    assert {status for status, _, _ in taken} == {200}
    assert max(end for _, _, end in taken) - min(end - spent for _, spent, end in taken) <= 0.5


async def test_the_peak_leaves_out_what_is_answered_later(tiny: "Start") -> None:
    server = tiny(slow)
    assert await measure_peak(server.url, REQUESTS, 0.1) == []
    assert server.asked


@pytest.mark.parametrize(
    ("statuses", "told"), [([401, 401], "401: 2"), ([200, 503], "503: 1"), ([0, 0], "0: 2"), ([], "there is no peak")]
)
def test_a_peak_with_other_answers_or_none_is_refused(statuses: list[int], told: str) -> None:
    with pytest.raises(SystemExit, match=told):
        count_peak([(status, 0.1, 0.1) for status in statuses])


def test_a_request_of_the_peak_that_failed_is_told_and_not_counted_as_answered() -> None:
    assert count_peak([(status, 0.1, 0.1) for status in (200, 0, 200)]) == {200: 2, 0: 1}


async def test_a_crowd_comes_at_its_rate_whether_or_not_it_is_answered(tiny: "Start") -> None:
    begin = time.perf_counter()
    taken, deepest = await send_crowd(tiny(slow).url, REQUESTS, 0.5, 40)
    asked = sorted(end - spent - begin for _, spent, end in taken)
    assert len(asked) == 20
    assert all(at >= number / 40 for number, at in enumerate(asked))
    assert deepest > 1


async def test_requests_that_are_dropped_or_never_answered_are_counted(
    tiny: "Start", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.overload.TIMEOUT_SECONDS", 3)
    over = threading.Event()

    def status(number: int) -> int:
        if number == 7:
            over.wait(30)
        return 0 if number in {3, 5} else 200

    taken, _ = await send_crowd(tiny(status).url, REQUESTS, 0.2, 100)
    over.set()
    assert Counter(status for status, _, _ in taken) == {200: 17, 0: 3}


async def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"image")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer_once, "127.0.0.1", 0) as server:
        connections = Connections(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for _ in range(3):
            assert await connections.post(REQUESTS[0]) == 200
            await asyncio.sleep(0.05)  # it closes meanwhile
        connections.close()
