"""What happens around every request: its id, its log line, its metrics, and an answer even if everything fails."""

import re
import time
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics
from service.problems import internal_error

log = structlog.get_logger()

HEADER = "X-Request-ID"
SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
UNMATCHED = "unmatched"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CLIENT_LEFT = 499
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
        request_id = request_id_of(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        begin = time.perf_counter()
        status = CLIENT_LEFT

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                if allowance := scope["state"].get("allowance"):
                    headers.update(allowance.headers())
            await send(message)

        structlog.contextvars.clear_contextvars()  # a pipelined request starts in the context of the one before it
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            except ClientDisconnect:
                pass
            except Exception:
                log.exception("internal_error")
                if status == CLIENT_LEFT:
                    await internal_error(request_id)(scope, receive, send_with_id)
            finally:
                self._record(scope, status, time.perf_counter() - begin)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        method = scope["method"] if scope["method"] in METHODS else UNMATCHED
        self.metrics.http_requests.labels(route=route, method=method, code=status).inc()
        self.metrics.http_request_duration.labels(route=route).observe(seconds)
        if route not in QUIET_ROUTES:
            log.info("request", method=method, route=route, status=status, seconds=round(seconds, 4))


def request_id_of(headers: Headers) -> str:
    """The client's request id if it sent a sane one (up to 128 letters, digits, `.`, `_`, `-`), else a new one."""
    offered = headers.get(HEADER, "")
    return offered if SANE_ID.fullmatch(offered) else uuid.uuid4().hex
