"""A route that hands the request to its endpoint as it is."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

Endpoint = Callable[[Request], Awaitable[Response]]


class PlainRoute(APIRoute):
    """Documented as any other, but its endpoint takes the request alone and gives the response.

    What FastAPI does besides, to solve parameters, to close what they opened and to check answers, takes longer than
    the decoding of an image. Errors are the affair of the handlers around the whole app.
    """

    def __init__(self, path: str, endpoint: Endpoint, **keywords: Any) -> None:
        super().__init__(path, endpoint, **keywords)
        self.app = _app(endpoint)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint, for whoever includes the route elsewhere."""
        return self.endpoint


def _app(endpoint: Endpoint) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    return app
