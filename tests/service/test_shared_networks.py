"""Networks that one process holds for several gateways, as a gateway's channel meets them."""

import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Listener
from pathlib import Path

import numpy as np
import pytest
import torch

from models.bundle import Bundle, BundleError, read_bundle, read_manifest
from models.device import Placement
from models.preprocessing import Pixels
from service.network_calls import NetworksEndedError
from service.network_host import NetworkHost, Shelf, SocketTakenError, listen
from service.networks import Draws, Inferred, LocalNetworks, Networks
from service.remote_networks import RemoteNetworks
from service.shared_networks import Wanted, shared_networks
from tests.conftest import PURIFIERS, change_bundle, untrained_purifier

PLACEMENT = Placement(torch.device("cpu"), "float32")
NAMES = tuple(PURIFIERS)
IMAGES = list(np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8))
DRAWS = Draws(np.random.default_rng(2).integers(0, 4, (3, 4)), NAMES)
IMPATIENT = 0.0


def real(bundle: Bundle, defense: str) -> Networks:
    return LocalNetworks(bundle, defense, PLACEMENT)


class Held:
    """Holds whoever asks until it is let go, and counts how many are in it at once; an odd batch fails."""

    device = "held"
    precision = "float32"

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.free = threading.Event()
        self.inside = self.most_inside = 0

    def warm_up(self, purifiers: tuple[str, ...], max_batch: int) -> None:
        """Needs none."""

    def infer(self, images: Sequence[Pixels], draws: Draws | None) -> Inferred:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.asked.release()
        assert self.free.wait(60)
        self.inside -= 1
        if draws is not None:
            raise KeyError("odd")
        return Inferred(np.zeros((len(images), 2), np.float32), 0, 0)

    def purify(self, images: Sequence[Pixels], draws: Draws) -> bool:  # noqa: ARG002
        return True

    def close(self) -> None:
        """Holds nothing."""


class Hosted:
    """A host in this process, and the gateways that ask it."""

    def __init__(self, folder: Path, path: Path, make: Callable[[Bundle, str], Networks]) -> None:
        self.folder = folder
        self.path = path
        self.made: list[str] = []
        self.works = True
        self.on_lost = threading.Event()
        self._make = make
        self.host = NetworkHost(Shelf(folder, self._counted), lambda: self.works, self.on_lost.set)
        self._gateways = ExitStack()

    def _counted(self, bundle: Bundle, defense: str) -> Networks:
        self.made.append(f"{bundle.manifest.version} {defense}")
        return self._make(bundle, defense)

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        with listen(self.path) as listener, self._gateways:
            yield listener

    def gateway(self, listener: Listener, defense: str = "puridefense") -> RemoteNetworks:
        """A gateway that has just begun and asks for what the folder has now."""
        with ThreadPoolExecutor(1) as threads:
            asking = threads.submit(shared_networks, self.path, read_manifest(self.folder), defense, IMPATIENT)
            self.host.admit(listener.accept())
            networks = asking.result()
        self._gateways.callback(networks.close)
        return networks


def ask_for_ever(networks: RemoteNetworks) -> None:
    while True:
        networks.purify(IMAGES, DRAWS)


@pytest.fixture
def folder(bundle_folder: Path, tmp_path: Path) -> Path:
    """A bundle that may change."""
    return Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "networks.sock"


@pytest.mark.parametrize("draws", [DRAWS, Draws(DRAWS.values % 2, NAMES[2:]), None])
def test_they_say_what_networks_in_this_process_say(folder: Path, path: Path, draws: Draws | None) -> None:
    hosted = Hosted(folder, path, real)
    expected = real(read_bundle(folder), "puridefense").infer(IMAGES, draws)
    with hosted.listening() as listener:
        networks = hosted.gateway(listener)
        networks.warm_up(NAMES, 4)
        found = networks.infer(IMAGES, draws)

        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
        assert (found.purify_seconds > 0) is (draws is not None)
        assert networks.purify(IMAGES, DRAWS) is True
        assert (networks.device, networks.precision) == ("cpu", "float32")


def test_gateways_share_the_networks_of_one_bundle_and_defense(folder: Path, path: Path) -> None:
    hosted = Hosted(folder, path, real)
    with hosted.listening() as listener:
        for defense in ("puridefense", "none", "puridefense", "none"):
            hosted.gateway(listener, defense)
        assert hosted.made == [f"{read_manifest(folder).version} {one}" for one in ("puridefense", "none")]


def test_a_gateway_with_a_new_bundle_gets_it_while_another_keeps_the_old_one(folder: Path, path: Path) -> None:
    hosted = Hosted(folder, path, real)
    with hosted.listening() as listener:
        old = hosted.gateway(listener)
        before = old.infer(IMAGES, DRAWS).scores
        change_bundle(folder, {"pgd-rcan": untrained_purifier(PURIFIERS["pgd-rcan"])}, version="2")
        new = hosted.gateway(listener)

        np.testing.assert_array_equal(old.infer(IMAGES, DRAWS).scores, before)
        assert not np.allclose(new.infer(IMAGES, DRAWS).scores, before, atol=1e-6)
        hosted.gateway(listener)
        assert len(hosted.made) == 2


def test_networks_stay_for_a_gateway_that_begins_again(folder: Path) -> None:
    shelf = Shelf(folder, real)
    wanted = Wanted(read_manifest(folder).networks, "none")
    with shelf.lend(wanted) as before:
        pass
    with shelf.lend(wanted) as after:
        assert after is before


def test_a_bundle_that_differs_in_its_name_alone_needs_no_other_networks(folder: Path, path: Path) -> None:
    hosted = Hosted(folder, path, real)
    with hosted.listening() as listener:
        hosted.gateway(listener)
        change_bundle(folder, version="2", labels=("a", "b", "c", "d"))
        hosted.gateway(listener)
        assert len(hosted.made) == 1


def test_networks_that_are_not_in_the_folder_any_more_are_told(folder: Path, path: Path) -> None:
    hosted = Hosted(folder, path, real)
    old = read_manifest(folder)
    change_bundle(folder, {"pgd-rcan": untrained_purifier(PURIFIERS["pgd-rcan"])})
    with hosted.listening() as listener, ThreadPoolExecutor(1) as threads:
        asking = threads.submit(shared_networks, path, old, "puridefense", IMPATIENT)
        hosted.host.admit(listener.accept())
        with pytest.raises(BundleError, match="another bundle in its folder now"):
            asking.result()


def test_a_bundle_that_is_damaged_is_told_and_the_next_gateway_is_served_once_it_is_mended(
    folder: Path, path: Path
) -> None:
    hosted = Hosted(folder, path, real)
    weights = folder / "classifier.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with hosted.listening() as listener:
        with pytest.raises(BundleError, match=r"classifier\.safetensors"):
            hosted.gateway(listener)
        weights.write_bytes(whole)
        assert hosted.gateway(listener).infer(IMAGES, DRAWS).scores.shape == (3, 4)


def test_batches_of_gateways_take_turns(folder: Path, path: Path) -> None:
    held = Held()
    hosted = Hosted(folder, path, lambda _bundle, _defense: held)
    with hosted.listening() as listener, ThreadPoolExecutor(3) as threads:
        gateways = [hosted.gateway(listener) for _ in range(3)]
        answers = [threads.submit(gateway.infer, IMAGES, None) for gateway in gateways]
        assert held.asked.acquire(timeout=60)
        held.free.set()
        assert [answer.result().scores.shape for answer in answers] == [(3, 2)] * 3
    assert held.most_inside == 1


def test_a_batch_that_fails_is_told_and_the_gateway_asks_on(folder: Path, path: Path) -> None:
    held = Held()
    held.free.set()
    hosted = Hosted(folder, path, lambda _bundle, _defense: held)
    with hosted.listening() as listener:
        networks = hosted.gateway(listener)
        with pytest.raises(RuntimeError, match=r"^KeyError\('odd'\)$"):
            networks.infer(IMAGES, DRAWS)
        assert networks.infer(IMAGES, None).scores.shape == (3, 2)
    assert not hosted.host.lost


def test_a_device_that_does_nothing_any_more_ends_the_process(folder: Path, path: Path) -> None:
    held = Held()
    held.free.set()
    hosted = Hosted(folder, path, lambda _bundle, _defense: held)
    hosted.works = False
    with hosted.listening() as listener:
        networks = hosted.gateway(listener)
        with pytest.raises(RuntimeError, match="odd"):
            networks.infer(IMAGES, DRAWS)
        assert hosted.on_lost.wait(60)
    assert hosted.host.lost


def test_a_stop_waits_for_the_batch_that_is_under_way_and_begins_no_other(folder: Path, path: Path) -> None:
    held = Held()
    hosted = Hosted(folder, path, lambda _bundle, _defense: held)
    with hosted.listening() as listener, ThreadPoolExecutor(2) as threads:
        networks, other = hosted.gateway(listener), hosted.gateway(listener)
        answer = threads.submit(networks.infer, IMAGES, None)
        assert held.asked.acquire(timeout=60)
        stopping = threads.submit(hosted.host.stop, 60)
        with pytest.raises(NetworksEndedError, match="ended"):
            ask_for_ever(other)  # until the stop has begun, which lets nothing in
        assert not stopping.done()
        held.free.set()
        stopping.result()
        assert answer.result().scores.shape == (3, 2)


def test_a_method_that_is_none_of_networks_ends_the_stay(folder: Path, path: Path) -> None:
    hosted = Hosted(folder, path, real)
    with hosted.listening() as listener:
        networks = hosted.gateway(listener)
        with networks._one() as channel, pytest.raises(NetworksEndedError):
            channel.ask("__init__")


def test_who_waits_for_an_answer_is_told_when_the_gateway_gives_up(folder: Path, path: Path) -> None:
    held = Held()
    hosted = Hosted(folder, path, lambda _bundle, _defense: held)
    with hosted.listening() as listener, ThreadPoolExecutor(1) as threads:
        networks = hosted.gateway(listener)
        networks._patience = 0.1
        answer = threads.submit(networks.infer, IMAGES, None)
        assert held.asked.acquire(timeout=60)
        networks.close()
        with pytest.raises(NetworksEndedError, match="ended"):
            answer.result()
        with pytest.raises(NetworksEndedError, match="closed"):
            networks.warm_up(NAMES, 1)
        held.free.set()


def test_nobody_there_is_told(folder: Path, path: Path) -> None:
    with pytest.raises(NetworksEndedError, match=f"{path}: nobody holds networks here"):
        shared_networks(path, read_manifest(folder), "puridefense", IMPATIENT)


def test_the_socket_is_for_this_user_alone_and_goes_with_its_listener(path: Path) -> None:
    with listen(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


def test_the_socket_of_another_process_is_not_taken(path: Path) -> None:
    with listen(path), pytest.raises(SocketTakenError, match="another process holds networks here"):
        listen(path)


def test_one_that_was_left_behind_is_taken(path: Path) -> None:
    left = listen(path)
    os.link(path, path.with_suffix(".left"))
    left.close()
    path.with_suffix(".left").rename(path)

    with listen(path):
        assert path.exists()


def test_what_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(SocketTakenError, match="is no socket"):
        listen(path)
    assert path.read_text() == "mine"
