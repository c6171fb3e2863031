"""Networks on CUDA: what a warm-up records answers as what was recorded; skipped without a GPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models import gathered_pool
from models.bundle import read_bundle
from models.device import Placement
from models.preprocessing import Pixels
from models.replay import Function, GraphRecorder, Recording
from service.networks import Draws, LocalNetworks

pytestmark = pytest.mark.cuda

LARGEST = 6
NAMES = ("fgsm-edsr", "fgsm-rcan", "pgd-edsr", "pgd-rcan")


def images(count: int) -> list[Pixels]:
    return list(np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), np.uint8))


def draws(count: int, names: tuple[str, ...]) -> Draws:
    return Draws(np.random.default_rng(count).integers(0, len(names), (count, 4)), names)


@pytest.fixture
def plain(bundle_folder: Path) -> LocalNetworks:
    """On the CPU, where nothing is recorded."""
    return LocalNetworks(read_bundle(bundle_folder), "puridefense", Placement(torch.device("cpu"), "float32"))


@pytest.fixture
def recorded(bundle_folder: Path) -> LocalNetworks:
    networks = LocalNetworks(read_bundle(bundle_folder), "puridefense", Placement(torch.device("cuda"), "bfloat16"))
    networks.warm_up(NAMES, LARGEST)
    return networks


@pytest.mark.parametrize("names", [NAMES, (NAMES[0], NAMES[3])], ids=["all", "two are left"])
def test_recorded_networks_answer_as_the_plain_ones(
    plain: LocalNetworks, recorded: LocalNetworks, names: tuple[str, ...]
) -> None:
    for count in (1, 3, LARGEST, LARGEST + 1, 2):
        asked, drawn = images(count), draws(count, names)
        found, expected = recorded.infer(asked, drawn), plain.infer(asked, drawn)
        np.testing.assert_allclose(found.scores, expected.scores, atol=0.03)
        assert found.purify_seconds > 0
        assert recorded.purify(asked, drawn)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of batches of all recordings that are made from now on."""
    sizes: list[int] = []
    record = GraphRecorder.__call__

    def counted(recorder: GraphRecorder, function: Function, inputs: tuple[Tensor, ...]) -> Recording:
        sizes.append(len(inputs[0]))
        return record(recorder, function, inputs)

    monkeypatch.setattr(GraphRecorder, "__call__", counted)
    return sizes


def test_no_query_waits_for_a_recording(bundle_folder: Path, made: list[int]) -> None:
    networks = LocalNetworks(read_bundle(bundle_folder), "puridefense", Placement(torch.device("cuda"), "bfloat16"))

    networks.warm_up(NAMES, LARGEST)

    assert sorted(made) == sorted([1, 2, 4, 8] * 2)
    for count in range(1, LARGEST + 1):
        networks.infer(images(count), draws(count, NAMES))
    assert len(made) == 8


def test_where_gathering_pays_both_ways_are_warm_and_answer_as_the_plain_networks(
    bundle_folder: Path, plain: LocalNetworks, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathered_pool, "WORTHWHILE", 1)
    networks = LocalNetworks(read_bundle(bundle_folder), "puridefense", Placement(torch.device("cuda"), "bfloat16"))

    networks.warm_up(NAMES, 2 * LARGEST)

    gathered = [4, 8, 16]  # smaller batches have room for all their windows in each architecture
    assert sorted(made) == sorted([1, 2, 4, 8, 16] * 2 + gathered)
    for count in (3, 8, 2 * LARGEST):
        crowd = Draws(np.zeros((count, 4), np.int64), NAMES)
        for drawn in (draws(count, NAMES), crowd):
            found, expected = networks.infer(images(count), drawn), plain.infer(images(count), drawn)
            np.testing.assert_allclose(found.scores, expected.scores, atol=0.03)
    assert len(made) == 13


def test_a_pool_that_cannot_be_routed_answers_all_the_same(
    bundle_folder: Path, plain: LocalNetworks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("models.recorded.routing_problem", lambda device: f"no compiler for {device}")
    networks = LocalNetworks(read_bundle(bundle_folder), "puridefense", Placement(torch.device("cuda"), "bfloat16"))

    found, expected = (one.infer(images(3), draws(3, NAMES)) for one in (networks, plain))

    assert "no compiler for cuda" in caplog.text
    np.testing.assert_allclose(found.scores, expected.scores, atol=0.03)


def test_undefended_answers_go_through_no_purifier(plain: LocalNetworks, recorded: LocalNetworks) -> None:
    found, expected = recorded.infer(images(3), None), plain.infer(images(3), None)
    np.testing.assert_allclose(found.scores, expected.scores, atol=0.03)
    assert found.purify_seconds == 0


def test_other_draws_are_other_answers(recorded: LocalNetworks) -> None:
    asked = images(3)
    one, other = (recorded.infer(asked, Draws(np.full((3, 4), index), NAMES)).scores for index in (0, 3))
    assert np.abs(one - other).max() > 0.001
