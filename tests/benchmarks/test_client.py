"""The client against a real server: what it counts, and what it sends."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from benchmarks.client import Client, Target

if TYPE_CHECKING:
    from tests.benchmarks.conftest import TinyServer

    Start = Callable[[Callable[[int], int]], TinyServer]

BODIES = ((b"one", "image/png"), (b"another", "application/json"))


def test_every_answer_is_counted_and_timed(tiny: "Start", client: Client) -> None:
    server = tiny(lambda _number: 200)
    taken = client.load(Target(server.url, BODIES), connections=4, seconds=0.2, warm_up=0)
    assert taken.failed == {}
    assert 0 < taken.answered <= len(server.asked)
    assert taken.per_second > 0
    assert taken.p50_ms is not None
    assert taken.p99_ms is not None
    assert 0 < taken.p50_ms <= taken.p99_ms
    assert taken.client_ms


def test_bodies_are_sent_in_turn_each_with_its_media_type(tiny: "Start", client: Client) -> None:
    server = tiny(lambda _number: 200)
    client.load(Target(server.url, BODIES), connections=1, seconds=0, warm_up=0)
    assert server.asked[:2] == [("image/png", b"one"), ("application/json", b"another")]


def test_a_slice_lasts_until_each_connection_was_answered_after_the_warm_up(tiny: "Start", client: Client) -> None:
    server = tiny(lambda _number: 200)
    client.load(Target(server.url, BODIES), connections=8, seconds=0, warm_up=0)
    others_under_way = 7
    assert len(server.asked) >= 2 * 8 + others_under_way


def test_what_is_not_200_is_a_failure_by_its_status(tiny: "Start", client: Client) -> None:
    server = tiny(lambda number: 503 if number % 2 else 200)
    taken = client.load(Target(server.url, BODIES), connections=8, seconds=0.1, warm_up=0)
    assert taken.failed == {"503": len(server.asked) // 2}
    assert 0 < taken.answered <= len(server.asked) - taken.failed["503"]


def test_a_connection_that_is_dropped_is_a_failure(tiny: "Start", client: Client) -> None:
    server = tiny(lambda number: 0 if number == 1 else 200)
    taken = client.load(Target(server.url, BODIES), connections=8, seconds=0.1, warm_up=0)
    assert taken.failed == {"ServerDisconnectedError": 1}
    assert taken.answered


def test_a_server_that_only_fails_did_nothing(tiny: "Start", client: Client) -> None:
    server = tiny(lambda _number: 500)
    taken = client.load(Target(server.url, BODIES), connections=2, seconds=0.1, warm_up=0)
    assert taken.failed == {"500": len(server.asked)}
    assert (taken.answered, taken.per_second, taken.p50_ms) == (0, 0, None)


@pytest.mark.parametrize("failure", [500, 0], ids=["refused", "dropped"])
def test_what_was_said_to_each_body_is_told_and_nothing_of_a_failure(
    failure: int, tiny: "Start", client: Client
) -> None:
    server = tiny(lambda number: failure if number == 1 else 200)
    assert client.told(Target(server.url, BODIES), connections=1) == [(2, 0.75), None]
