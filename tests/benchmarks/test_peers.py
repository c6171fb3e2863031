"""What others serve: the classifier of the gateway, by its bare engine's answers."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from benchmarks.bodies import Body, blots
from benchmarks.client import Client
from benchmarks.offline import Expected, running_offline
from benchmarks.peers import network
from benchmarks.peers.network import Network, build_network
from benchmarks.rounds import agree, serving
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
from models.preprocessing import Pixels
from service.engine import Scores
from service.settings import Settings, embedded_bundle

BUNDLE = embedded_bundle()
"""The scores of the small bundles of tests hardly differ from one image to another."""


@pytest.fixture(scope="module")
def bodies() -> list[Body]:
    return blots(32, 32)


@pytest.fixture(scope="module")
def expected(bodies: list[Body]) -> Sequence[Expected]:
    with running_offline(Served(BUNDLE, "cpu"), [content for content, _ in bodies]) as offline:
        return offline.told()


def test_the_answer_to_another_image_would_be_noticed(expected: Sequence[Expected]) -> None:
    told = [(index, score) for index, score, _ in expected]
    assert all(map(agree, told, expected))
    assert sum(map(agree, told, [*expected[1:], expected[0]])) < len(expected) / 2


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
def test_it_says_what_the_engine_says(
    name: str, variant: int, bodies: list[Body], expected: Sequence[Expected], client: Client
) -> None:
    pytest.importorskip(PEERS[name])
    with serving([systems()[name][variant]], Served(BUNDLE, "cpu"), bodies) as (one,):
        assert one.agreement(client, 16, expected) == 1


def test_torchs_network_computes_without_our_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(bundle=BUNDLE, device="cpu", defense="none", workers=1, max_batch=2)
    images = [np.full((32, 32, 3), level, np.uint8) for level in (40, 200)]
    ours = _scores(build_network(Network.ENGINE, settings), images)

    def fail(*_: object) -> None:
        raise AssertionError("our engine was loaded")

    monkeypatch.setattr(network, "load_engine", fail)
    torchs = _scores(build_network(Network.TORCH, settings), images)
    np.testing.assert_allclose(torchs, ours, atol=0.02)
    with pytest.raises(AssertionError, match="our engine"):
        build_network(Network.ENGINE, settings)


def _scores(classify: Callable[[Sequence[Pixels]], object], images: Sequence[Pixels]) -> Scores:
    return np.stack([*classify(images)])  # type: ignore[misc]
