"""What is written to a connection in one turn of the event loop goes out in one piece."""

import asyncio
from typing import Any


class OnePieceTransport:
    """A transport that waits with what is written until the end of the turn.

    uvicorn writes the head and the body of an answer one after the other. Sent so, they are two packets, of which the
    kernel makes two calls and wakes the client twice: more than the head and the body themselves cost.

    Args:
        transport: what it writes to; everything else goes straight there.
        loop: whose turns count.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        """Anything but writing and closing."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Sends `data` at the end of the turn, together with what else is written until then."""
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def close(self) -> None:
        """Closes the connection once everything is sent."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces and not self._transport.is_closing():
            self._transport.write(b"".join(pieces))
