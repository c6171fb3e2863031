"""Writing in one piece, over a real socket."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.transport import OnePieceTransport

PATIENCE_SECONDS = 30


class Spy:
    """Stands before a transport and remembers what is written to it.

    Attributes:
        writes: each of them.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.writes: list[bytes] = []
        self._transport = transport

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        self._transport.write(data)

    def close(self) -> None:
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str) -> object:
        return self._transport.get_extra_info(name)


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[OnePieceTransport, Spy, asyncio.StreamReader]]:
    """The transport, what stands behind it, and what the other end of the connection reads."""
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    spy = Spy(transport)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield OnePieceTransport(spy, loop), spy, reader  # type: ignore[arg-type]
    finally:
        transport.close()
        writer.close()


async def test_what_is_written_in_one_turn_is_one_write() -> None:
    async with connection() as (transport, spy, reader):
        transport.write(b"head")
        transport.write(b"body")
        assert await reader.readexactly(8) == b"headbody"
        assert spy.writes == [b"headbody"]


async def test_what_is_written_in_the_next_turn_is_another_one() -> None:
    async with connection() as (transport, spy, reader):
        transport.write(b"one")
        assert await reader.readexactly(3) == b"one"
        transport.write(b"two")
        assert await reader.readexactly(3) == b"two"
        assert spy.writes == [b"one", b"two"]


async def test_what_was_written_before_the_end_is_sent() -> None:
    async with connection() as (transport, _spy, reader):
        transport.write(b"last ")
        transport.write(b"words")
        transport.close()
        assert await reader.read() == b"last words"


async def test_nothing_is_written_to_a_connection_that_was_lost_meanwhile() -> None:
    async with connection() as (transport, spy, reader):
        transport.write(b"too late")
        spy.close()
        assert await reader.read() == b""
        assert spy.writes == []


async def test_anything_else_goes_to_the_transport_itself() -> None:
    async with connection() as (transport, _spy, _reader):
        assert transport.get_extra_info("socket").family == socket.AF_UNIX
        assert not transport.is_closing()
