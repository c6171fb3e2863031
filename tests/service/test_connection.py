"""Work for a client lasts as long as the client stays."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Message

from service.connection import while_connected

PATIENCE_SECONDS = 30


class Client:
    """Has sent its request; stays until it is told to leave."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self._request = Request({"type": "http", "headers": []}, self.receive)

    async def wait_for(self, work: Coroutine[Any, Any, str]) -> str:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await while_connected(self._request, work)

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}


class Work:
    """Ends when it is told to, and remembers if it was cancelled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.finish = asyncio.Event()
        self.cancelled = False

    async def __call__(self) -> str:
        self.begun.set()
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "done"


async def test_a_client_that_stays_gets_the_result() -> None:
    work = Work()
    work.finish.set()
    assert await Client().wait_for(work()) == "done"


async def test_a_client_that_leaves_cancels_the_work() -> None:
    client, work = Client(), Work()
    answering = asyncio.create_task(client.wait_for(work()))
    await work.begun.wait()
    client.left.set()
    with pytest.raises(ClientDisconnect):
        await answering
    assert work.cancelled


async def test_a_failure_of_the_work_is_passed_on() -> None:
    async def fail() -> str:
        raise LookupError

    with pytest.raises(LookupError):
        await Client().wait_for(fail())


async def test_whoever_stops_the_request_stops_its_work() -> None:
    work = Work()
    answering = asyncio.create_task(Client().wait_for(work()))
    await work.begun.wait()
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert work.cancelled


async def test_nothing_is_left_running() -> None:
    work = Work()
    work.finish.set()
    await Client().wait_for(work())
    await asyncio.sleep(0)  # what was cancelled ends at the next turn of the loop
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_time_limit_of_the_work_is_no_departure_of_the_client() -> None:
    async def give_up() -> str:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
        return "never"

    with pytest.raises(TimeoutError):
        await Client().wait_for(give_up())
