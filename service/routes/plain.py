"""A route that hands the request to its endpoint as it is."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute


class PlainRoute(APIRoute):
    """Documented as any other, but its endpoint takes the request alone and gives the response.

    What FastAPI does besides, to solve parameters and to check answers, takes longer than the decoding of an image.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint."""
        return self.endpoint
