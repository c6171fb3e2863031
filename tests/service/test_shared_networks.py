"""Networks that one process holds for several gateways, as a gateway's channel meets them."""

import os
import shutil
import stat
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Listener
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.bundle import Bundle, BundleError, read_bundle, read_manifest
from models.device import Placement
from models.preprocessing import Pixels
from service import shared_networks as shared
from service.network_calls import NetworksEndedError
from service.network_host import NetworkHost
from service.network_shelf import Shelf
from service.network_socket import SocketError, listen
from service.networks import Draws, Inferred, LocalNetworks, Networks
from service.remote_networks import RemoteNetworks
from service.shared_networks import Wanted, shared_networks
from tests.conftest import PURIFIERS, change_bundle, untrained_purifier

PLACEMENT = Placement(torch.device("cpu"), "float32")
NAMES = tuple(PURIFIERS)
IMAGES = list(np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8))
DRAWS = Draws(np.random.default_rng(2).integers(0, 4, (3, 4)), NAMES)
IMPATIENT = 0.0
MANY = 20_000


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

    def purify(self, images: Sequence[Pixels], draws: Draws) -> NDArray[np.bool_]:  # noqa: ARG002
        return np.ones(len(images), np.bool_)

    def close(self) -> None:
        """Holds nothing."""


class Hosted:
    """A host in this process, and the gateways that ask it."""

    def __init__(
        self, folder: Path, path: Path, make: Callable[[Bundle, str], Networks], batch_seconds: float = 60
    ) -> None:
        self.folder = folder
        self.path = path
        self.made: list[str] = []
        self.works = True
        self.on_lost = threading.Event()
        self._make = make
        shelf = Shelf(folder, self._counted)
        self.host = NetworkHost(shelf, lambda: self.works, self.on_lost.set, batch_seconds)
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


def dead(*_arguments: object) -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def ask_on(networks: RemoteNetworks) -> None:
    for _ in range(MANY):
        networks.purify(IMAGES, DRAWS)


def wanted_of(folder: Path) -> Wanted:
    return Wanted(read_manifest(folder).networks, "puridefense")


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
        assert networks.purify(IMAGES, DRAWS).tolist() == [True] * len(IMAGES)
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
    wanted = wanted_of(folder)
    before = shelf.take(wanted)
    shelf.give_back(wanted)
    assert shelf.take(wanted) is before


def test_a_device_with_room_for_two_is_enough_for_one_new_bundle_after_the_other(folder: Path) -> None:
    """A bundle whose warm-up failed is the last that was asked for, and nobody has it."""
    made: list[weakref.ref[Networks]] = []

    def make(bundle: Bundle, defense: str) -> Networks:
        assert sum(one() is not None for one in made) < 2, "out of memory"
        networks = real(bundle, defense)
        made.append(weakref.ref(networks))
        return networks

    shelf = Shelf(folder, make)
    shelf.take(wanted_of(folder))
    for _ in range(3):
        change_bundle(folder, {"pgd-rcan": untrained_purifier(PURIFIERS["pgd-rcan"])})
        wanted = wanted_of(folder)
        shelf.take(wanted)
        shelf.give_back(wanted)
    assert len(made) == 4


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
        with pytest.raises(BundleError, match=r"^classifier\.safetensors: ") as told:
            hosted.gateway(listener)
        assert str(folder) not in str(told.value)
        weights.write_bytes(whole)
        assert hosted.gateway(listener).infer(IMAGES, DRAWS).scores.shape == (3, 4)


def test_batches_of_gateways_take_turns(folder: Path, path: Path) -> None:
    held = Held()
    hosted = Hosted(folder, path, lambda _bundle, _defense: held)
    with hosted.listening() as listener, ThreadPoolExecutor(3) as threads:
        gateways = [hosted.gateway(listener) for _ in range(3)]
        answers = [threads.submit(gateway.infer, IMAGES, None) for gateway in gateways]
        assert held.asked.acquire(timeout=60)
        assert not held.asked.acquire(timeout=0.5), "a second one was let in"
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


@pytest.mark.parametrize("where", ["a batch", "loading"])
def test_a_device_is_looked_at_even_if_its_memory_cannot_be_given_back(
    folder: Path, path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """As it is on a GPU after an illegal access: whatever is asked of it raises."""
    held = Held()
    held.free.set()

    def make(_bundle: Bundle, _defense: str) -> Networks:
        if where == "loading":
            dead()
        return held

    monkeypatch.setattr(torch.cuda, "empty_cache", dead)
    hosted = Hosted(folder, path, make)
    hosted.works = False
    with hosted.listening() as listener:
        with pytest.raises(RuntimeError, match="illegal" if where == "loading" else "odd"):
            hosted.gateway(listener).infer(IMAGES, DRAWS)
        assert hosted.on_lost.wait(60)


def test_a_stop_waits_until_gateways_have_drained_and_left(folder: Path, path: Path) -> None:
    hosted = Hosted(folder, path, real)
    with hosted.listening() as listener, ThreadPoolExecutor(1) as threads:
        gateways = [hosted.gateway(listener) for _ in range(2)]
        stopping = threads.submit(hosted.host.stop, 60)
        for gateway in gateways:
            assert not stopping.done()
            for _ in range(3):
                assert gateway.infer(IMAGES, DRAWS).scores.shape == (3, 4)
            gateway.close()
        stopping.result(60)


def test_a_stop_after_a_while_waits_for_the_batch_that_is_under_way_and_begins_no_other(
    folder: Path, path: Path
) -> None:
    held = Held()
    hosted = Hosted(folder, path, lambda _bundle, _defense: held)
    with hosted.listening() as listener, ThreadPoolExecutor(2) as threads:
        networks, other = hosted.gateway(listener), hosted.gateway(listener)
        answer = threads.submit(networks.infer, IMAGES, None)
        assert held.asked.acquire(timeout=60)
        stopping = threads.submit(hosted.host.stop, 0)
        with pytest.raises(NetworksEndedError, match="ended"):
            ask_on(other)  # until the stop has begun, which lets nothing in
        assert not stopping.done()
        held.free.set()
        stopping.result()
        assert answer.result().scores.shape == (3, 2)


def test_who_does_not_answer_is_given_up(folder: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "BATCH_SECONDS", 0.2)
    held = Held()
    hosted = Hosted(folder, path, lambda _bundle, _defense: held)
    with hosted.listening() as listener:
        networks = hosted.gateway(listener)
        with pytest.raises(NetworksEndedError, match=r"did not answer within 0\.2 s"):
            networks.infer(IMAGES, None)
        with pytest.raises(NetworksEndedError, match="no way to the networks"):
            networks.infer(IMAGES, None)
        held.free.set()


def test_another_user_is_not_asked(folder: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with listen(path), pytest.raises(NetworksEndedError, match=f"{path}: another user listens here"):
        shared_networks(path, read_manifest(folder), "puridefense", IMPATIENT)


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
    with listen(path), pytest.raises(SocketError, match="another process holds networks here"):
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
    with pytest.raises(SocketError, match="is no socket"):
        listen(path)
    assert path.read_text() == "mine"


def test_a_socket_that_cannot_be_made_is_told_with_its_path(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere" / "networks.sock", tmp_path / ("long" * 50)):
        with pytest.raises(SocketError, match=f"^{path}: "):
            listen(path)


def test_a_batch_that_hangs_loses_the_device_and_a_slow_one_does_not(folder: Path, path: Path) -> None:
    held = Held()
    hosted = Hosted(folder, path, lambda *_: held, batch_seconds=0.05)
    with hosted.listening() as listener, ThreadPoolExecutor(1) as threads:
        networks = hosted.gateway(listener)
        held.free.set()
        networks.infer(IMAGES, None)
        watching = threading.Thread(target=hosted.host.watch)
        watching.start()
        held.free.clear()
        asking = threads.submit(networks.infer, IMAGES, None)

        assert hosted.on_lost.wait(60)
        assert hosted.host.lost
        held.free.set()
        asking.result()
        watching.join(60)
        assert not watching.is_alive()


def test_whoever_asks_one_that_reads_nothing_is_told_in_the_end(
    folder: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "BATCH_SECONDS", 1)
    hosted = Hosted(folder, path, real)
    with hosted.listening() as listener, ThreadPoolExecutor(1) as threads:
        asking = threads.submit(shared_networks, path, read_manifest(folder), "puridefense", IMPATIENT)
        pipe = listener.accept()
        pipe.recv()
        pipe.send((None, shared.Held("held", "float32"), ""))
        networks = asking.result()
        many = [np.zeros((1000, 1000, 3), np.uint8)] * 20
        with pipe, pytest.raises(NetworksEndedError):
            networks.infer(many, None)
