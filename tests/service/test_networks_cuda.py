"""Networks on CUDA: what a warm-up records answers as what was recorded; skipped without a GPU."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.bundle import read_bundle
from models.device import Placement
from models.preprocessing import Pixels
from models.purifier import Purifier
from models.recorded import gathered_pool
from models.recorded.replay import Function, GraphRecorder, Recording
from service.networks import Draws, LocalNetworks
from tests.conftest import PURIFIERS, change_bundle

pytestmark = pytest.mark.cuda

LARGEST = 6
NAMES = tuple(PURIFIERS)
ROUNDING = 5e-4
"""That scores may differ by: four times what bfloat16 changes on a CPU, and a fourth of what other draws change."""
CPU = Placement(torch.device("cpu"), "float32")
CUDA = Placement(torch.device("cuda"), "bfloat16")


def images(count: int) -> list[Pixels]:
    return list(np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), np.uint8))


def draws(count: int, names: tuple[str, ...]) -> Draws:
    return Draws(np.random.default_rng(count).integers(0, len(names), (count, 4)), names)


@pytest.fixture(scope="module")
def folder(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a bundle whose purifiers change so much that scores tell which of them an image met."""
    folder = tmp_path_factory.mktemp("strong") / "bundle"
    shutil.copytree(bundle_folder, folder)
    strong = {name: Purifier(config) for name, config in PURIFIERS.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for purifier in strong.values():
            correction = purifier.decoder.layers[-1]
            assert isinstance(correction, nn.Conv2d)
            nn.init.normal_(correction.weight)
    change_bundle(folder, strong)
    return folder


@pytest.fixture
def plain(folder: Path) -> LocalNetworks:
    """On the CPU, where nothing is recorded."""
    return LocalNetworks(read_bundle(folder), "puridefense", CPU)


@pytest.fixture
def recorded(folder: Path) -> LocalNetworks:
    networks = LocalNetworks(read_bundle(folder), "puridefense", CUDA)
    networks.warm_up(NAMES, LARGEST)
    return networks


def scores(networks: LocalNetworks, count: int, drawn: Draws) -> NDArray[np.float32]:
    return networks.infer(images(count), drawn).scores


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_other_draws_are_other_answers(plain: LocalNetworks, recorded: LocalNetworks, turn: int) -> None:
    """Without it, all others here could pass whichever purifiers an image met."""
    count = 2 * LARGEST
    turned = Draws((draws(count, NAMES).values + turn) % len(NAMES), NAMES)
    found, expected = scores(recorded, count, turned), scores(plain, count, draws(count, NAMES))
    assert np.abs(found - expected).max() > 4 * ROUNDING


@pytest.mark.parametrize("names", [NAMES, (NAMES[0], NAMES[3])], ids=["all", "two are left"])
def test_recorded_networks_answer_as_the_plain_ones(
    plain: LocalNetworks, recorded: LocalNetworks, names: tuple[str, ...]
) -> None:
    for count in (1, 3, LARGEST, LARGEST + 1, 2):
        asked, drawn = images(count), draws(count, names)
        found, expected = recorded.infer(asked, drawn), plain.infer(asked, drawn)
        np.testing.assert_allclose(found.scores, expected.scores, atol=ROUNDING)
        assert found.purify_seconds > 0
        assert recorded.purify(asked, drawn).tolist() == [True] * count


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


def test_no_query_waits_for_a_recording(folder: Path, made: list[int]) -> None:
    networks = LocalNetworks(read_bundle(folder), "puridefense", CUDA)

    networks.warm_up(NAMES, LARGEST)

    assert sorted(made) == sorted([1, 2, 4, 8] * 2)
    for count in range(1, LARGEST + 1):
        networks.infer(images(count), draws(count, NAMES))
    assert len(made) == 8


def test_where_gathering_pays_both_ways_are_warm_and_answer_as_the_plain_networks(
    folder: Path, plain: LocalNetworks, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathered_pool, "WORTHWHILE", 1)
    networks = LocalNetworks(read_bundle(folder), "puridefense", CUDA)

    networks.warm_up(NAMES, 2 * LARGEST)

    gathered = [4, 8, 16]  # smaller batches have room for all their windows in each architecture
    assert sorted(made) == sorted([1, 2, 4, 8, 16] * 2 + gathered)
    for count in (3, 8, 2 * LARGEST):
        crowd = Draws(np.zeros((count, 4), np.int64), NAMES)
        for drawn in (draws(count, NAMES), crowd):
            found, expected = scores(networks, count, drawn), scores(plain, count, drawn)
            np.testing.assert_allclose(found, expected, atol=ROUNDING)
    assert len(made) == 13


def test_a_pool_that_cannot_be_routed_answers_all_the_same(
    folder: Path, plain: LocalNetworks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("models.recorded.networks.routing_problem", lambda device: f"no compiler for {device}")
    networks = LocalNetworks(read_bundle(folder), "puridefense", CUDA)

    found, expected = (scores(one, 3, draws(3, NAMES)) for one in (networks, plain))

    assert "no compiler for cuda" in caplog.text
    np.testing.assert_allclose(found, expected, atol=ROUNDING)


def test_undefended_answers_go_through_no_purifier(plain: LocalNetworks, recorded: LocalNetworks) -> None:
    found, expected = recorded.infer(images(3), None), plain.infer(images(3), None)
    np.testing.assert_allclose(found.scores, expected.scores, atol=ROUNDING)
    assert found.purify_seconds == 0


def test_networks_answer_while_others_are_recorded(folder: Path, plain: LocalNetworks, recorded: LocalNetworks) -> None:
    """As during a reload, and where a second gateway begins."""
    expected, over = scores(plain, LARGEST, draws(LARGEST, NAMES)), threading.Event()

    def answers() -> list[NDArray[np.float32]]:
        found = [scores(recorded, LARGEST, draws(LARGEST, NAMES))]
        while not over.is_set():
            found.append(scores(recorded, LARGEST, draws(LARGEST, NAMES)))
        return found

    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(answers)
        try:
            others = LocalNetworks(read_bundle(folder), "puridefense", CUDA)
            others.warm_up(NAMES, LARGEST)
        finally:
            over.set()
        for found in [*asking.result(), scores(others, LARGEST, draws(LARGEST, NAMES))]:
            np.testing.assert_allclose(found, expected, atol=ROUNDING)
