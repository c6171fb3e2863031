"""The shared store behind a password, with a real Redis that asks for one."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from redis.exceptions import AuthenticationError

from service.keys import parse_quota
from service.quota_store import QuotaStore, redis_store
from service.secret_file import SecretError

if TYPE_CHECKING:
    from tests.conftest import RedisServer

SECONDS = 2.0
LIMITS = parse_quota("3/day")


@pytest.fixture
def administrator(redis_server: "RedisServer") -> "redis.Redis":
    """A connection that was made before there was a password, and stays."""
    return redis.Redis(port=redis_server.port, single_connection_client=True)


class PasswordFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.write("first\n")

    def write(self, password: str) -> None:
        self.path.write_text(password)

    def remove(self) -> None:
        self.path.unlink()


@pytest.fixture
def password_file(tmp_path: Path) -> PasswordFile:
    return PasswordFile(tmp_path / "password")


async def count(store: QuotaStore) -> bool:
    try:
        return (await store.take("alice", LIMITS, 1)).granted
    finally:
        await store.close()


async def test_the_password_comes_from_its_file(
    redis_server: "RedisServer", administrator: "redis.Redis", password_file: PasswordFile
) -> None:
    administrator.config_set("requirepass", "first")
    assert await count(redis_store(redis_server.url, SECONDS, password_file.path))


async def test_without_it_nothing_is_counted(redis_server: "RedisServer", administrator: "redis.Redis") -> None:
    administrator.config_set("requirepass", "first")
    with pytest.raises(AuthenticationError):
        await count(redis_store(redis_server.url, SECONDS))


async def test_a_user_of_the_url_has_the_password_of_the_file(
    redis_server: "RedisServer", administrator: "redis.Redis", password_file: PasswordFile
) -> None:
    administrator.config_set("requirepass", "another")
    administrator.acl_setuser("gateway", enabled=True, passwords=["+first"], keys=["*"], commands=["+@all"])
    url = redis_server.url.replace("redis://", "redis://gateway@")
    assert await count(redis_store(url, SECONDS, password_file.path))


async def test_a_new_password_needs_no_restart(
    redis_server: "RedisServer", administrator: "redis.Redis", password_file: PasswordFile
) -> None:
    administrator.config_set("requirepass", "first")
    store = redis_store(redis_server.url, SECONDS, password_file.path)
    assert (await store.take("alice", LIMITS, 1)).granted
    administrator.config_set("requirepass", "second")
    password_file.write("second")
    await store.forget_connections()
    assert await count(store)


async def test_a_file_that_is_gone_is_a_redis_that_is_gone(
    redis_server: "RedisServer", administrator: "redis.Redis", password_file: PasswordFile
) -> None:
    administrator.config_set("requirepass", "first")
    store = redis_store(redis_server.url, SECONDS, password_file.path)
    password_file.remove()
    with pytest.raises(AuthenticationError, match=str(password_file.path)):
        await count(store)


async def test_a_password_that_is_no_text_is_a_redis_that_is_gone(
    redis_server: "RedisServer", password_file: PasswordFile
) -> None:
    password_file.path.write_bytes(b"\xff\xfe")
    with pytest.raises(AuthenticationError, match="not UTF-8 text"):
        await count(redis_store(redis_server.url, SECONDS, password_file.path))


def test_a_file_that_is_missing_at_the_start_is_an_error(redis_server: "RedisServer", tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="nowhere"):
        redis_store(redis_server.url, SECONDS, tmp_path / "nowhere")
