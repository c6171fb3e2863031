"""What routes ask for of the state that the lifespan opened."""

from dataclasses import dataclass
from typing import Annotated, TypedDict

import structlog
from fastapi import Depends, Request

from service.allowance import Allowance
from service.audit import AuditLog
from service.bodies import Bodies
from service.deadline import Deadline
from service.errors import DeadlinePassedError, ForbiddenError, QuotaStoreError, UnauthenticatedError
from service.gateway import Gateway
from service.keyring import Keyring
from service.keys import Key
from service.metrics import Metrics
from service.quotas import Quotas
from service.settings import Settings

BEARER = "bearer"


class State(TypedDict):
    """What the lifespan opens; every request sees it."""

    settings: Settings
    metrics: Metrics
    gateway: Gateway
    keys: Keyring | None
    quotas: Quotas
    bodies: Bodies
    audit: AuditLog | None


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


async def authenticate_admin(key: Annotated[Key | None, Depends(authenticate)]) -> None:
    """Lets a request pass if it bears an admin key.

    Raises:
        ForbiddenError: its key is none, or no keys are configured.
    """
    if key is None or not key.admin:
        raise ForbiddenError("this needs a key made with 'purigate keys new --admin'")


async def _keyring(request: Request) -> Keyring | None:
    return request.state.keys  # type: ignore[no-any-return]


class Quota:
    """The quota of whoever sends a request; it leaves what is left where the middleware finds it for the answer.

    Args:
        request: of which the answer will tell.
        key: of whoever sent it.
    """

    def __init__(self, request: Request, key: Key | None) -> None:
        self._state = request.state
        self._key = key

    def refuse_if_spent(self) -> None:
        """Spares the reading of a body whose images the quota cannot allow; it is refused as one image.

        Raises:
            QuotaExceededError: it is known to be used up.
        """
        if self._key:
            self._settle(self._state.quotas.refuse_if_spent(self._key, 1), 1)

    async def take(self, images: int, deadline: Deadline) -> None:
        """Counts `images` against the quota.

        Raises:
            QuotaExceededError: they are too many.
            QuotaStoreError: they cannot be counted.
            DeadlinePassedError: they were not counted in time.
        """
        if not self._key:
            return
        try:
            async with deadline.enforced():
                allowance = await self._state.quotas.take(self._key, images)
        except QuotaStoreError:
            self._count("rejected", images)
            raise
        except DeadlinePassedError:
            self._count("deadline", images)
            raise
        self._settle(allowance, images)

    def _settle(self, allowance: Allowance | None, images: int) -> None:
        if allowance is None:
            return
        self._state.allowance = allowance
        if not allowance.granted:
            self._count("rejected", images)
        allowance.require()

    def _count(self, outcome: str, images: int) -> None:
        self._state.metrics.queries.labels(outcome=outcome).inc(images)


@dataclass(frozen=True, eq=False)
class Visit:
    """What a request about images needs of the service.

    Attributes:
        key: of whoever sent it; nothing if none are configured.
        quota: of that key.
        request_id: of the request.
    """

    settings: Settings
    gateway: Gateway
    bodies: Bodies
    audit: AuditLog | None
    key: Key | None
    quota: Quota
    request_id: str


async def visit_of(request: Request) -> Visit:
    """That of a request.

    Raises:
        UnauthenticatedError: it has no key, or not one of ours.
    """
    key = await authenticate(request)
    state = request.state
    return Visit(
        settings=state.settings,
        gateway=state.gateway,
        bodies=state.bodies,
        audit=state.audit,
        key=key,
        quota=Quota(request, key),
        request_id=state.request_id,
    )


SettingsDependency = Annotated[Settings, Depends(_settings)]
MetricsDependency = Annotated[Metrics, Depends(_metrics)]
GatewayDependency = Annotated[Gateway, Depends(_gateway)]
KeyringDependency = Annotated[Keyring | None, Depends(_keyring)]
RequestId = Annotated[str, Depends(_request_id)]
