"""Quotas: how many images the holder of each key may still ask about, whatever becomes of the shared store."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import structlog
from redis.exceptions import RedisError

from service.allowance import Allowance
from service.errors import QuotaStoreError
from service.keys import Key
from service.metrics import Metrics
from service.quota_store import QuotaStore, local_store, redis_store
from service.settings import QuotaFallback, Settings

log = structlog.get_logger()

RETRY_SECONDS = 0.5
STORE_FAILURES = (RedisError, OSError, TimeoutError)


@dataclass(frozen=True)
class Spent:
    """A quota that was found used up; nothing can change that before `until`.

    Attributes:
        quota: as the key had it then; another one is another matter.
        since, until: points on the clock.
        allowance: what was answered.
    """

    quota: str | None
    since: float
    until: float
    allowance: Allowance


class Quotas:
    """Counts in the shared store while it answers in time, and by the fallback while it does not.

    Args:
        local: counts for this process alone.
        shared: counts for all replicas; without one, only this process counts.
        fallback: while the shared store is away, `local` counts here, `deny` refuses.
        timeout_seconds: slower is away.
        metrics: where the store's state and what is taken are told.
        clock: seconds.
    """

    def __init__(
        self,
        local: QuotaStore,
        shared: QuotaStore | None,
        fallback: QuotaFallback,
        timeout_seconds: float,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._local = local
        self._shared = shared
        self._fallback = fallback
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics
        self._clock = clock
        self._spent: dict[str, Spent] = {}
        self._waiting: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, settings: Settings, metrics: Metrics) -> "Quotas":
        """Those that the settings ask for.

        Raises:
            service.secret_file.SecretError: the password of the shared store cannot be read.
        """
        seconds = settings.redis_timeout_ms / 1000
        url = settings.redis_url
        shared = redis_store(url.get_secret_value(), seconds, settings.redis_password_file) if url else None
        return cls(local_store(), shared, settings.quota_fallback, seconds, metrics)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Looks whether the shared store answers; closes it at the end."""
        async with AsyncExitStack() as stack:
            if self._shared:
                stack.push_async_callback(self._shared.close)
                stack.callback(self._stop_waiting)
                try:
                    await self._probe(self._shared)
                except STORE_FAILURES as error:
                    self._lose(self._shared, error)
            yield

    def refuse_if_spent(self, key: Key, images: int) -> Allowance | None:
        """What is known of the quota of `key` without asking the store: nothing, or that it is used up.

        Then `images` are counted in the metrics as refused.
        """
        spent = self._spent.get(key.id)
        now = self._clock()
        if spent is None or spent.quota != key.quota or now >= spent.until:
            return None
        self._tell(key, "refused", images)
        return replace(spent.allowance.after(now - spent.since), images=images)

    async def take(self, key: Key, images: int) -> Allowance | None:
        """Counts `images` against the quota of `key`, and in the metrics; the answer is None if it has no quota.

        Raises:
            QuotaStoreError: the shared store is away and the fallback is `deny`.
        """
        refused = self.refuse_if_spent(key, images)
        if refused:
            return refused
        allowance = await self._count(key, images) if key.limits else None
        self._tell(key, "granted" if allowance is None or allowance.granted else "refused", images)
        return allowance

    def _tell(self, key: Key, outcome: str, images: int) -> None:
        self._metrics.key_queries.labels(key=key.id, outcome=outcome).inc(images)

    async def _count(self, key: Key, images: int) -> Allowance:
        allowance = await self._ask_stores(key, images)
        wait = 0.0 if allowance.granted else allowance.seconds_until(1)
        now = self._clock()
        if wait:
            self._spent[key.id] = Spent(key.quota, now, now + wait, allowance)
        return allowance

    async def _ask_stores(self, key: Key, images: int) -> Allowance:
        if self._shared and not self._waiting:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    return await self._shared.take(key.id, key.limits, images)
            except STORE_FAILURES as error:
                self._lose(self._shared, error)
        if self._shared and self._fallback == "deny":
            raise QuotaStoreError("quotas cannot be counted now", RETRY_SECONDS)
        return await self._local.take(key.id, key.limits, images)

    def _lose(self, shared: QuotaStore, error: Exception) -> None:
        """Several requests may find out at once; the first one tells."""
        if self._waiting is None:
            self._metrics.quota_store_degraded.set(1)
            log.error("quota_store_lost", fallback=self._fallback, reason=f"{type(error).__name__}: {error}")
            self._waiting = asyncio.create_task(self._wait_for(shared))

    async def _wait_for(self, shared: QuotaStore) -> None:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                await shared.forget_connections()
                await self._probe(shared)
            except STORE_FAILURES:
                continue
            except Exception:
                log.exception("quota_store_not_probed")
                continue
            self._waiting = None
            self._spent.clear()
            self._metrics.quota_store_degraded.set(0)
            log.info("quota_store_back")
            return

    async def _probe(self, shared: QuotaStore) -> None:
        async with asyncio.timeout(self._timeout_seconds):
            await shared.probe()

    def _stop_waiting(self) -> None:
        if self._waiting:
            self._waiting.cancel()
