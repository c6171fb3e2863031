"""What others serve: the classifier of the gateway, by its bare engine's answers."""

from pathlib import Path

import pytest

from benchmarks.bodies import blots
from benchmarks.client import Client
from benchmarks.offline import running_offline
from benchmarks.rounds import serving
from benchmarks.systems import (
    FASTAPI,
    LITSERVE,
    MOSEC,
    PEERS,
    PLAIN_FASTAPI,
    PLAIN_LITSERVE,
    PLAIN_MOSEC,
    Served,
    systems,
)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        (FASTAPI, 0),
        (LITSERVE, 0),
        (MOSEC, 0),
        (MOSEC, 2),
        (PLAIN_FASTAPI, 0),
        (PLAIN_LITSERVE, 0),
        (PLAIN_MOSEC, 0),
    ],
)
def test_it_says_what_the_engine_says(name: str, variant: int, bundle_folder: Path, client: Client) -> None:
    pytest.importorskip(PEERS[name])
    bodies = blots(32, 32)
    with running_offline(Served(bundle_folder, "cpu"), [content for content, _ in bodies]) as offline:
        expected = offline.told()
    with serving([systems()[name][variant]], Served(bundle_folder, "cpu"), bodies) as (one,):
        assert one.agreement(client, 16, expected) == 1
        taken = one.load(client, connections=16, seconds=0.2, warm_up=0)
    assert taken.failed == {}
    assert taken.answered
