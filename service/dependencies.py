"""What routes ask for of the state that the lifespan opened."""

from typing import Annotated, TypedDict

import structlog
from fastapi import Depends, Request

from service.errors import UnauthenticatedError
from service.gateway import Gateway
from service.keyring import Keyring
from service.keys import Key
from service.metrics import Metrics
from service.settings import Settings

BEARER = "bearer"


class State(TypedDict):
    """What the lifespan opens; every request sees it."""

    settings: Settings
    metrics: Metrics
    gateway: Gateway
    keys: Keyring | None


async def _settings(request: Request) -> Settings:
    return request.state.settings  # type: ignore[no-any-return]


async def _metrics(request: Request) -> Metrics:
    return request.state.metrics  # type: ignore[no-any-return]


async def _gateway(request: Request) -> Gateway:
    return request.state.gateway  # type: ignore[no-any-return]


async def _request_id(request: Request) -> str:
    return request.state.request_id  # type: ignore[no-any-return]


async def authenticate(request: Request) -> Key | None:
    """The key that a request bears; nothing if none are configured.

    Raises:
        UnauthenticatedError: it has no key, or not one of ours.
    """
    keys: Keyring | None = request.state.keys
    if keys is None:
        return None
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    secret = token.strip() if scheme.lower() == BEARER else request.headers.get("x-api-key", "")
    if not secret:
        raise UnauthenticatedError("send a key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'")
    key = keys.identify(secret)
    structlog.contextvars.bind_contextvars(key=key.id)
    return key


SettingsDependency = Annotated[Settings, Depends(_settings)]
MetricsDependency = Annotated[Metrics, Depends(_metrics)]
GatewayDependency = Annotated[Gateway, Depends(_gateway)]
KeyDependency = Annotated[Key | None, Depends(authenticate)]
RequestId = Annotated[str, Depends(_request_id)]
