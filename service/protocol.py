"""Connections: how many there may be, and how long and how large the head of a request may be.

uvicorn bounds neither. A client that sends a byte now and then would keep a connection for as long as it likes.
"""

import asyncio
import time
import uuid
from asyncio import TimerHandle
from dataclasses import dataclass
from typing import Any, cast

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.errors import HEAD_TOO_LARGE, PROBLEMS, TOO_MANY_CONNECTIONS, MalformedRequestError, Problem
from service.metrics import Metrics
from service.problems import problem_response
from service.transport import OnePieceTransport

RETRY_AFTER = "1"
PROBES = frozenset({b"/livez", b"/readyz"})
"""What is answered on a connection that is one too many, too: whoever supervises the service would restart it for being
busy if it got no answer."""


@dataclass(frozen=True)
class ConnectionLimits:
    """What every connection has to keep to.

    Attributes:
        connections: most that are open at once.
        head_seconds: from its first chance to send a request to the end of that request's head.
        head_bytes: of a head that is not complete yet, and of whatever else is no body: what follows a body in chunks.
        metrics: where those that are cut off are counted.
    """

    connections: int
    head_seconds: float
    head_bytes: int
    metrics: Metrics


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, within limits."""

    def __init__(self, *arguments: Any, limits: ConnectionLimits, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._limits = limits
        self._head_timer: TimerHandle | None = None
        self._head_bytes = 0
        self._one_too_many = False
        self.idle_since = time.monotonic()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes a connection, in place of the one that is idle for longest if there are too many.

        Where none is idle, it may ask a probe and nothing else. Until it asks it counts as idle itself, so that there
        is never more than one such beside those that are being answered; who takes its place may do no more.
        """
        super().connection_made(cast("asyncio.Transport", OnePieceTransport(transport, self.loop)))
        if len(self.connections) > self._limits.connections:
            replaced = self._close_an_idle_one()
            self._one_too_many = replaced is None or replaced._one_too_many  # noqa: SLF001 - one of ours
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on, unless the head is endless, or what follows a body in chunks."""
        if self.transport.is_closing():
            return
        self._head_bytes += len(data)  # set back where some of it turns out to be the end of a head, or of a body
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.between_requests:
            self._await_head()
        if self._head_bytes > self._limits.head_bytes:
            self._refuse_head()

    def on_headers_complete(self) -> None:
        """The head is there in time."""
        self._stop_waiting()
        self._one_too_many = self._one_too_many and len(self.connections) > self._limits.connections
        if self._one_too_many and self.url.partition(b"?")[0] not in PROBES:
            self._refuse(TOO_MANY_CONNECTIONS, "too many connections are open", RETRY_AFTER)
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of a body, which is bounded elsewhere."""
        self._head_bytes = 0
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there."""
        if not self.transport.is_closing():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is refused like anything else that is malformed."""
        self._refuse(PROBLEMS[MalformedRequestError], msg)

    def on_response_complete(self) -> None:
        """From now on the connection is idle."""
        self.idle_since = time.monotonic()
        super().on_response_complete()

    @property
    def between_requests(self) -> bool:
        """Whether nothing is being answered: no head came yet, or the answer to the last one is sent."""
        return self.cycle is None or self.cycle.response_complete

    def _close_an_idle_one(self) -> "GuardedProtocol | None":
        others = (one for one in self.connections if isinstance(one, GuardedProtocol) and one is not self)
        idle = [one for one in others if one.between_requests and not one.transport.is_closing()]
        if not idle:
            return None
        longest = min(idle, key=lambda one: one.idle_since)
        longest.transport.close()
        return longest

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._limits.head_seconds, self._cut_off)

    def _stop_waiting(self) -> None:
        self._head_bytes = 0
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    def _cut_off(self) -> None:
        """Nothing was asked yet, so nothing is answered."""
        self._limits.metrics.rejected.labels(reason="head-timeout").inc()
        self.transport.close()

    def _refuse_head(self) -> None:
        """While an answer is under way nothing can be said in between."""
        if self.between_requests:
            self._refuse(HEAD_TOO_LARGE, f"the head of the request has more than {self._limits.head_bytes} bytes")
        else:
            self._limits.metrics.rejected.labels(reason=HEAD_TOO_LARGE.slug).inc()
            self.transport.close()

    def _refuse(self, problem: Problem, detail: str, retry_after: str | None = None) -> None:
        self._limits.metrics.rejected.labels(reason=problem.slug).inc()
        request_id = uuid.uuid4().hex
        headers = {"X-Request-ID": request_id, "Connection": "close"}
        if retry_after:
            headers["Retry-After"] = retry_after
        self.transport.write(_as_bytes(problem_response(problem, detail, request_id, headers)))
        self.transport.close()


def _as_bytes(response: Response) -> bytes:
    fields = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
    return STATUS_LINE[response.status_code] + fields + b"\r\n" + bytes(response.body)
