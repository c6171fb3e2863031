"""Where the images of each key are counted: in this process, or in Redis for all replicas."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from limits import RateLimitItem
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError

from service.allowance import Allowance, Usage
from service.secret_file import SecretError, read_secret

PREFIX = "purigate"
CONNECTIONS = 16
PROBE = "probe"
PROBE_SECONDS = 1


class QuotaStore:
    """Counts images in sliding windows, each in one step, so that no two callers can share what is left.

    Args:
        storage: one of the library's; `local_store` and `redis_store` make them.
        pool: connections to close at the end.
    """

    def __init__(self, storage: MemoryStorage | RedisStorage, pool: BlockingConnectionPool | None = None) -> None:
        self._storage = storage
        self._pool = pool
        self._limiter = SlidingWindowCounterRateLimiter(storage)

    async def take(self, name: str, limits: Sequence[RateLimitItem], images: int) -> Allowance:
        """Counts `images` against every window or, if one of them is full, against none."""
        if len(limits) > 1:  # with one window, counting is all or nothing by itself
            usages = await self._usages(name, limits)
            if any(usage.remaining < images for usage in usages):
                return Allowance(images, granted=False, usages=usages)
        granted = await self._count(name, limits, images)
        return Allowance(images, granted, await self._usages(name, limits))

    async def _count(self, name: str, limits: Sequence[RateLimitItem], images: int) -> bool:
        """Counts against one window after another; if one was filled meanwhile, gives the others theirs back."""
        counted: list[RateLimitItem] = []
        for limit in limits:
            if not await self._limiter.hit(limit, name, cost=images):
                await asyncio.gather(*(self._limiter.hit(one, name, cost=-images) for one in counted))
                return False
            counted.append(limit)
        return True

    async def probe(self) -> None:
        """Counts for nobody, since one that can be read may still not be written; raises what `take` would raise."""
        # Not a hit: where a window ended it begins with a rename, and then Redis lets it write without memory.
        await self._storage.incr(PROBE, PROBE_SECONDS)

    async def forget_connections(self) -> None:
        """Closes those that wait in the pool: they may lead to a Redis that is no more, and each would fail once."""
        if self._pool:
            await self._pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        """Closes every connection."""
        if self._pool:
            await self._pool.aclose()

    async def _usages(self, name: str, limits: Sequence[RateLimitItem]) -> tuple[Usage, ...]:
        return tuple(await asyncio.gather(*(self._usage(name, limit) for limit in limits)))

    async def _usage(self, name: str, limit: RateLimitItem) -> Usage:
        length = limit.get_expiry()
        previous, previous_left, current, kept = await self._storage.get_sliding_window(limit.key_for(name), length)
        # A window is kept for as long again after its end, as the previous one.
        return Usage(limit, previous, previous_left, max(0, current), max(0.0, kept - length))


def local_store() -> QuotaStore:
    """A store that only this process sees."""
    return QuotaStore(MemoryStorage())


class PasswordFile(CredentialProvider):
    """The password of Redis, read from its file at each connection: a new one needs no restart.

    Args:
        path: of the file.
        user: whose password it is; without one, that of Redis' default user.

    Raises:
        SecretError: the file cannot be read now.
    """

    def __init__(self, path: Path, user: str | None = None) -> None:
        self._path = path
        self._user = user
        read_secret(path)

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """What a connection authenticates with.

        Raises:
            redis.exceptions.AuthenticationError: the file cannot be read any more, or holds no text.
        """
        try:
            password = read_secret(self._path).decode()
        except SecretError as error:
            raise AuthenticationError(str(error)) from error
        except UnicodeDecodeError:
            raise AuthenticationError(f"{self._path}: not UTF-8 text") from None  # the error holds the secret
        return (self._user, password) if self._user else (password,)


def redis_store(url: str, timeout_seconds: float, password_file: Path | None = None) -> QuotaStore:
    """A store that all replicas of one Redis share; connects when it is first used.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        timeout_seconds: of connecting and of each command; nothing is tried twice.
        password_file: holds the password, if `url` does not.

    Raises:
        SecretError: the password cannot be read.
    """
    credentials = None
    if password_file:
        url, user = _without_user(url)
        credentials = PasswordFile(password_file, user)
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=timeout_seconds,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        credential_provider=credentials,
    )
    scheme = "redis+unix" if url.startswith("unix:") else "redis"
    storage = RedisStorage(f"async+{scheme}://", implementation="redispy", key_prefix=PREFIX, connection_pool=pool)  # type: ignore[arg-type]
    return QuotaStore(storage, pool)


def _without_user(url: str) -> tuple[str, str | None]:
    """The library takes a user from a URL or from a provider of credentials, not from both."""
    parts = urlsplit(url)
    user = unquote(parts.username) if parts.username else None
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), user
