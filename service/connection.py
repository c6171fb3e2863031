"""Work for a client lasts as long as the client stays."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

Result = TypeVar("Result")


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled if the client leaves. The body must have been read before.

    Raises:
        ClientDisconnect: the client left.
    """
    stay = asyncio.timeout(None)
    try:
        async with stay:
            watching = asyncio.create_task(_watch(request, stay))
            try:
                return await work
            finally:
                watching.cancel()
    except TimeoutError as error:
        if stay.expired():
            raise ClientDisconnect from error
        raise


async def _watch(request: Request, stay: asyncio.Timeout) -> None:
    """Ends the stay of a client as soon as it leaves."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    stay.reschedule(asyncio.get_running_loop().time())
