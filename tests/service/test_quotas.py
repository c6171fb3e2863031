"""Quotas, with a real Redis that is killed, hung and brought back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import redis
import structlog

from service.errors import QuotaExceededError, QuotaStoreError
from service.keys import Key
from service.metrics import Metrics
from service.quota_store import QuotaStore, local_store, redis_store
from service.quotas import Quotas
from service.settings import QuotaFallback

if TYPE_CHECKING:
    from tests.conftest import RedisServer

PATIENCE_SECONDS = 30
REDIS_SECONDS = 2.0
SHORT_SECONDS = 0.05


def key(quota: str | None, name: str = "alice") -> Key:
    return Key(id=name, sha256="0" * 64, quota=quota)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - nothing tells us when
            await asyncio.sleep(0.01)


class Replica:
    """One process's quotas, what it counts, and a clock that stands still."""

    def __init__(self, shared: QuotaStore | None, fallback: QuotaFallback, seconds: float) -> None:
        self.metrics = Metrics()
        self.now = 0.0
        self.quotas = Quotas(local_store(), shared, fallback, seconds, self.metrics, lambda: self.now)

    async def granted(self, key: Key, images: int = 1) -> bool:
        allowance = await self.quotas.take(key, images)
        return allowance is None or allowance.granted

    async def let_through(self, key: Key, attempts: int) -> int:
        return sum(await asyncio.gather(*(self.granted(key) for _ in range(attempts))))

    def counted(self, name: str) -> dict[str, float | None]:
        """The images of a key, by what became of them."""
        sample = partial(self.metrics.registry.get_sample_value, "purigate_key_queries_total")
        return {outcome: sample({"key": name, "outcome": outcome}) for outcome in ("granted", "refused")}

    def degraded(self) -> bool:
        return self.metrics.registry.get_sample_value("purigate_quota_store_degraded") == 1


@asynccontextmanager
async def replica(
    url: str | None = None, fallback: QuotaFallback = "local", seconds: float = REDIS_SECONDS
) -> AsyncIterator[Replica]:
    one = Replica(redis_store(url, seconds) if url else None, fallback, seconds)
    async with one.quotas.open():
        yield one


async def test_without_a_quota_nothing_is_refused() -> None:
    async with replica() as one:
        assert await one.quotas.take(key(None), 1000) is None


async def test_alone_exactly_as_many_images_pass_as_the_quota_says() -> None:
    async with replica() as one:
        assert await one.let_through(key("7/day"), 50) == 7


async def test_two_replicas_on_one_redis_let_exactly_the_quota_through(redis_server: "RedisServer") -> None:
    async with (
        replica(redis_server.url, seconds=PATIENCE_SECONDS) as one,
        replica(redis_server.url, seconds=PATIENCE_SECONDS) as other,
    ):
        passed = await asyncio.gather(*(each.let_through(key("37/day"), 100) for each in (one, other)))
    assert sum(passed) == 37


async def test_every_image_of_a_batch_counts(redis_server: "RedisServer") -> None:
    async with replica(redis_server.url, seconds=PATIENCE_SECONDS) as one:
        assert [await one.granted(key("10/day"), 4) for _ in range(3)] == [True, True, False]
        assert await one.let_through(key("10/day"), 9) == 2


async def test_two_keys_count_apart(redis_server: "RedisServer") -> None:
    async with replica(redis_server.url, seconds=PATIENCE_SECONDS) as one:
        assert [await one.let_through(key("3/day", name), 9) for name in ("alice", "bob")] == [3, 3]


async def test_the_tightest_window_decides(redis_server: "RedisServer") -> None:
    async with replica(redis_server.url, seconds=PATIENCE_SECONDS) as one:
        assert await one.let_through(key("9/hour; 4/day"), 20) == 4
        assert await one.let_through(key("4/hour; 9/day", "bob"), 20) == 4


async def remaining(one: Replica, key: Key) -> list[int]:
    """What is left of every window, shortest first."""
    allowance = await one.quotas.take(key, 0)
    assert allowance
    return [usage.remaining for usage in allowance.usages]


@pytest.mark.parametrize("shared", [True, False], ids=["redis", "local"])
async def test_what_one_window_refuses_counts_in_none(redis_server: "RedisServer", *, shared: bool) -> None:
    limited = key("50/hour; 4/day")
    async with replica(redis_server.url if shared else None) as one:
        assert [await one.granted(limited, 3) for _ in range(3)] == [True, False, False]
        assert await remaining(one, limited) == [47, 1]


async def test_what_one_window_refuses_counts_in_none_however_many_ask_at_once(redis_server: "RedisServer") -> None:
    limited = key("500/hour; 20/day")
    seconds = PATIENCE_SECONDS  # a Redis that is merely slow must not be lost here
    async with replica(redis_server.url, seconds=seconds) as one, replica(redis_server.url, seconds=seconds) as other:
        passed = await asyncio.gather(*(each.let_through(limited, 50) for each in (one, other)))
        assert (sum(passed), one.degraded(), other.degraded()) == (20, False, False)
    async with replica(redis_server.url) as another:
        assert await remaining(another, limited) == [480, 0]


async def test_an_answer_tells_what_is_left_of_every_window(redis_server: "RedisServer") -> None:
    async with replica(redis_server.url) as one:
        allowance = await one.quotas.take(key("9/hour; 20/day"), 2)
    assert allowance
    assert [(usage.name, usage.remaining) for usage in allowance.usages] == [("hour", 7), ("day", 18)]
    assert all(0 < usage.current_seconds <= usage.limit.get_expiry() for usage in allowance.usages)


async def test_what_is_taken_is_counted_by_the_name_of_its_key() -> None:
    async with replica() as one:
        await one.let_through(key("3/day"), 5)
    assert one.counted("alice") == {"granted": 3, "refused": 2}


async def test_what_a_key_without_a_quota_asks_is_counted_too() -> None:
    async with replica() as one:
        await one.granted(key(None), 5)
    assert one.counted("alice") == {"granted": 5, "refused": None}


async def test_a_quota_that_is_used_up_is_known_without_asking_until_there_is_more(
    redis_server: "RedisServer",
) -> None:
    spent = key("3/hour")
    async with replica(redis_server.url) as one:
        assert one.quotas.refuse_if_spent(spent, 1) is None
        await one.let_through(spent, 4)
        refused = one.quotas.refuse_if_spent(spent, 1)
        assert refused
        wait = refused.seconds_until(1)
        one.now = wait / 2
        later = one.quotas.refuse_if_spent(spent, 1)
        assert later
        assert later.seconds_until(1) == pytest.approx(wait / 2)
        one.now = wait
        assert one.quotas.refuse_if_spent(spent, 1) is None


async def test_a_refusal_tells_of_what_was_asked_and_not_of_what_was_refused_before() -> None:
    limited = key("5/hour; 3/day")
    async with replica() as one:
        assert [await one.granted(limited, 3) for _ in range(2)] == [True, False]
        for refused in (one.quotas.refuse_if_spent(limited, 1), await one.quotas.take(limited, 1)):
            assert refused
            with pytest.raises(QuotaExceededError, match=r"used up: 3 images a day$") as told:
                refused.require()
            assert told.value.retry_after == refused.seconds_until(1)


async def test_each_refusal_is_counted_once_however_early_it_is_known() -> None:
    limited = key("3/day")
    async with replica() as one:
        await one.let_through(limited, 4)
        one.quotas.refuse_if_spent(limited, 1)
        await one.granted(limited, 2)
    assert one.counted("alice") == {"granted": 3, "refused": 4}


async def test_a_batch_that_is_too_large_for_what_is_left_does_not_use_it_up() -> None:
    async with replica() as one:
        assert [await one.granted(key("5/day"), images) for images in (3, 3, 2)] == [True, False, True]


async def test_a_quota_that_was_raised_counts_at_once() -> None:
    async with replica() as one:
        await one.let_through(key("3/day"), 4)
        assert await one.granted(key("30/day"))


async def test_while_redis_is_gone_each_replica_counts_for_itself(redis_server: "RedisServer") -> None:
    async with replica(redis_server.url) as one, replica(redis_server.url) as other:
        redis_server.kill()
        assert [await each.let_through(key("5/day"), 20) for each in (one, other)] == [5, 5]
        assert (one.degraded(), other.degraded()) == (True, True)


async def test_redis_that_hangs_is_gone(redis_server: "RedisServer") -> None:
    async with replica(redis_server.url, seconds=SHORT_SECONDS) as one:
        redis_server.hang()
        try:
            assert await one.let_through(key("5/day"), 20) == 5
            assert one.degraded()
        finally:
            redis_server.go_on()


async def test_its_loss_is_told_once_and_undone_by_itself(redis_server: "RedisServer") -> None:
    with structlog.testing.capture_logs() as lines:
        async with replica(redis_server.url, seconds=PATIENCE_SECONDS) as one:
            await one.let_through(key("5/day"), 5)
            redis_server.kill()
            await one.let_through(key("5/day"), 20)
            redis_server.start()
            await until(lambda: not one.degraded())
            assert await one.let_through(key("5/day"), 20) == 5, "the new Redis has counted nothing yet"
    assert [line["event"] for line in lines] == ["quota_store_lost", "quota_store_back"]


async def test_redis_that_can_only_be_read_is_gone_until_it_can_be_written(redis_server: "RedisServer") -> None:
    def probes() -> int:
        return int(administrator.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])

    with structlog.testing.capture_logs() as lines, redis.Redis(port=redis_server.port) as administrator:
        async with replica(redis_server.url) as one:
            assert await one.granted(key("5/day"))
            administrator.config_set("maxmemory", 1)
            assert await one.let_through(key("5/day"), 20) == 5
            administrator.config_resetstat()
            await until(lambda: probes() >= 2)
            assert one.degraded()
            administrator.config_set("maxmemory", 0)
            await until(lambda: not one.degraded())
    assert [line["event"] for line in lines] == ["quota_store_lost", "quota_store_back"]


async def test_redis_that_is_not_there_at_the_start_is_gone_and_comes_back(redis_server: "RedisServer") -> None:
    redis_server.kill()
    async with replica(redis_server.url) as one:
        assert one.degraded()
        assert await one.granted(key("5/day"))
        redis_server.start()
        await until(lambda: not one.degraded())


async def test_under_deny_nobody_with_a_quota_passes_while_redis_is_gone(redis_server: "RedisServer") -> None:
    async with replica(redis_server.url, "deny") as one:
        redis_server.kill()
        for _ in range(2):
            with pytest.raises(QuotaStoreError):
                await one.quotas.take(key("5/day"), 1)
        assert await one.quotas.take(key(None), 1) is None
        redis_server.start()
        await until(lambda: not one.degraded())
        assert await one.granted(key("5/day"))


async def test_a_bug_while_redis_is_asked_again_is_told_and_does_not_end_the_asking(
    redis_server: "RedisServer", monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forget(_store: QuotaStore) -> None:
        monkeypatch.undo()
        raise RuntimeError("a bug")

    with structlog.testing.capture_logs() as lines:
        redis_server.kill()
        async with replica(redis_server.url) as one:
            monkeypatch.setattr(QuotaStore, "forget_connections", forget)
            redis_server.start()
            await until(lambda: not one.degraded())
    assert [line["event"] for line in lines] == ["quota_store_lost", "quota_store_not_probed", "quota_store_back"]


async def test_closing_leaves_nothing_running(redis_server: "RedisServer") -> None:
    async with replica(redis_server.url) as one:
        redis_server.kill()
        await one.granted(key("5/day"))
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
