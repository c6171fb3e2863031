"""What happens around every request: its id, its log line, its metrics, and an answer even if everything fails."""

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import PROBLEMS, NotReadyError
from service.metrics import Metrics
from service.problems import internal_error, not_ready

log = structlog.get_logger()

HEADER = "X-Request-ID"
SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
UNMATCHED = "unmatched"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CLIENT_LEFT = 499
CONTINUE = b"100-continue"
LINGER_SECONDS = 1.0
QUIET_ROUTES = frozenset({"/livez", "/readyz", "/metrics"})


class RequestMiddleware:
    """Gives each request an id and a clock; a pure ASGI middleware, so that bodies stream through it.

    Args:
        app: what answers the request.
        metrics: where requests are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = dict(reversed(scope["headers"]))  # of several with one name the first
        request_id = request_id_of(asked)
        scope.setdefault("state", {})["request_id"] = request_id
        begin = time.perf_counter()
        status = CLIENT_LEFT
        reading = Reading(asked, receive)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = {HEADER: request_id}
                if reading.unfinished:
                    await reading.take_what_came()
                if reading.unfinished:  # nobody will read the rest, so the next request could not be told from it
                    headers["Connection"] = "close"
                if allowance := scope["state"].get("allowance"):
                    headers |= allowance.headers()
                message["headers"] = [*message["headers"], *map(_encoded, headers.items())]
            await reading.finish(message, send)

        structlog.contextvars.clear_contextvars()  # a pipelined request starts in the context of the one before it
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._run(scope, reading, send_with_id, lambda: status != CLIENT_LEFT)
            finally:
                self._record(scope, status, time.perf_counter() - begin)

    async def _run(self, scope: Scope, receive: Receive, send: Send, has_begun: Callable[[], bool]) -> None:
        """Has the app answer, and answers in its place where it fails before its answer `has_begun`."""
        request_id = scope["state"]["request_id"]
        try:
            await self.app(scope, receive, send)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:
            if has_begun():
                raise
            # The server ends and has no time left for this answer: its client, which has not left, is told.
            self.metrics.rejected.labels(reason=PROBLEMS[NotReadyError].slug).inc()
            await not_ready(request_id)(scope, receive, send)
        except Exception:
            log.exception("internal_error")
            if not has_begun():
                await internal_error(request_id)(scope, receive, send)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        method = scope["method"] if scope["method"] in METHODS else UNMATCHED
        self.metrics.count_request(route, method, status, seconds)
        if route not in QUIET_ROUTES:
            log.info("request", method=method, route=route, status=status, seconds=round(seconds, 4))


class Reading:
    """Receives for the app, and knows how far it got.

    Attributes:
        unfinished: whether the request has a body of which some was not received.
    """

    def __init__(self, headers: Mapping[bytes, bytes], receive: Receive) -> None:
        self.unfinished = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
        self._invites = headers.get(b"expect", b"").lower() == CONTINUE
        """Whether to receive is to ask the client for its body, which it waits with."""
        self._receive = receive

    async def __call__(self) -> Message:
        """The next message."""
        self._invites = False
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.unfinished = False
        return message

    async def take_what_came(self) -> None:
        """Reads on without waiting: after a small body, which came with its head, the connection can go on."""
        if self._invites:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                while self.unfinished:
                    await self()

    async def finish(self, message: Message, send: Send) -> None:
        """Sends `message`; before the connection is closed on a body that nobody wants, reads on for a moment.

        Closed at once, the connection would be reset under a client that still sends, and the answer be lost with it.
        """
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not last or not self.unfinished or self._invites:
            await send(message)
            return
        await send({**message, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while self.unfinished:
                    await self()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The client's request id if it sent a sane one (up to 128 letters, digits, `.`, `_`, `-`), else a new one.

    Args:
        headers: of the request, by their names in lower case.
    """
    offered = headers.get(HEADER.lower().encode(), b"").decode("latin-1")
    return offered if SANE_ID.fullmatch(offered) else uuid.uuid4().hex


def _encoded(header: tuple[str, str]) -> tuple[bytes, bytes]:
    name, value = header
    return name.lower().encode("latin-1"), value.encode("latin-1")
