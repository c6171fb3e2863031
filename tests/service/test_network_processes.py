"""Networks in processes of their own say what they say in this one, end with their pipe, and begin again."""

import dataclasses
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import structlog
import torch
from numpy.typing import NDArray

from models.bundle import BundleError, read_bundle
from models.device import Placement
from models.preprocessing import Pixels
from service.network_calls import NetworksEndedError
from service.network_processes import BundleNetworks, network_processes
from service.networks import Draws, Inferred, LocalNetworks
from service.remote_networks import RemoteNetworks
from tests.processes import children, processes_of_networks, run

PLACEMENT = Placement(torch.device("cpu"), "float32")
PURIFIERS = ("fgsm-edsr", "fgsm-rcan", "pgd-edsr", "pgd-rcan")
IMAGES = list(np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8))
DRAWS = Draws(np.random.default_rng(2).integers(0, 4, (3, 4)), PURIFIERS)


class Failing:
    """Fails in the way that the images say."""

    device = "none"
    precision = "float32"

    def warm_up(self, purifiers: tuple[str, ...], max_batch: int) -> None:
        """Needs none."""

    def infer(self, images: Sequence[Pixels], draws: Draws | None) -> Inferred:  # noqa: ARG002
        errors = (torch.OutOfMemoryError("too large"), FloatingPointError("no numbers"), KeyError("odd"))
        raise errors[int(images[0].max())]

    def purify(self, images: Sequence[Pixels], draws: Draws) -> NDArray[np.bool_]:  # noqa: ARG002
        os._exit(7)

    def close(self) -> None:
        """Holds nothing."""


class Named(Failing):
    """Says in which process it is."""

    def infer(self, images: Sequence[Pixels], draws: Draws | None) -> Inferred:  # noqa: ARG002
        return Inferred(np.full((len(images), 2), os.getpid(), np.float32), 0, 0)


@dataclasses.dataclass
class Stuck(Named):
    """Never answers; who reads `asked`, a named pipe, waits until it was asked."""

    asked: Path

    def infer(self, images: Sequence[Pixels], draws: Draws | None) -> Inferred:
        self.asked.write_text("asked")
        threading.Event().wait()
        return super().infer(images, draws)


def of_bundle(folder: Path) -> BundleNetworks:
    return BundleNetworks(folder, read_bundle(folder).manifest, "puridefense", PLACEMENT, threads=1)


def running() -> set[int]:
    """Processes of networks that were begun by this one."""
    return processes_of_networks(os.getpid())


@pytest.fixture(scope="module")
def two(bundle_folder: Path) -> Iterator[RemoteNetworks]:
    """Two processes with the toy bundle."""
    networks = network_processes(of_bundle(bundle_folder), 2, PLACEMENT)
    networks.warm_up(PURIFIERS, 4)
    yield networks
    networks.close()


@pytest.fixture
def one() -> Iterator[Callable[[Callable[[], Failing]], RemoteNetworks]]:
    begun: list[RemoteNetworks] = []

    def begin(make: Callable[[], Failing]) -> RemoteNetworks:
        begun.append(network_processes(make, 1, PLACEMENT))
        begun[-1].warm_up((), 1)
        return begun[-1]

    yield begin
    for networks in begun:
        networks.close()


@pytest.mark.parametrize(
    "draws",
    [DRAWS, Draws(DRAWS.values % 2, PURIFIERS[2:]), None],
    ids=["all purifiers", "those that are left", "undefended"],
)
def test_they_say_what_networks_in_this_process_say(
    two: RemoteNetworks, bundle_folder: Path, draws: Draws | None
) -> None:
    here = LocalNetworks(read_bundle(bundle_folder), "puridefense", PLACEMENT).infer(IMAGES, draws)

    there = two.infer(IMAGES, draws)

    np.testing.assert_allclose(there.scores, here.scores, atol=1e-6)
    assert (there.purify_seconds > 0) is (draws is not None)
    assert there.classify_seconds > 0


def test_draws_point_at_the_purifiers_that_they_name(two: RemoteNetworks) -> None:
    of_two = DRAWS.values % 2

    left = two.infer(IMAGES, Draws(of_two, PURIFIERS[2:]))

    np.testing.assert_allclose(left.scores, two.infer(IMAGES, Draws(of_two + 2, PURIFIERS)).scores, atol=1e-6)
    assert not np.allclose(left.scores, two.infer(IMAGES, Draws(of_two, PURIFIERS)).scores, atol=1e-6)


def test_whether_a_defense_gives_numbers_is_told(two: RemoteNetworks) -> None:
    assert two.purify(IMAGES, DRAWS).tolist() == [True] * len(IMAGES)


def test_threads_that_ask_at_once_are_answered_by_different_processes() -> None:
    networks = network_processes(Named, 2, PLACEMENT)
    networks.warm_up((), 1)
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: networks.infer(IMAGES, None).scores[0, 0], range(20)))
    networks.close()

    assert len(set(answers)) == 2
    assert os.getpid() not in answers


def test_nothing_runs_before_the_first_warm_up(bundle_folder: Path) -> None:
    before = running()
    networks = network_processes(of_bundle(bundle_folder), 1, PLACEMENT)

    with pytest.raises(NetworksEndedError, match="not there"):
        networks.infer(IMAGES, None)
    assert running() == before


@pytest.mark.parametrize(
    ("which", "error", "told"),
    [
        (0, torch.OutOfMemoryError, "too large"),
        (1, FloatingPointError, "no numbers"),
        (2, RuntimeError, r"KeyError\('odd'\)"),
    ],
)
def test_an_error_comes_as_what_it_was(
    one: Callable[[Callable[[], Failing]], RemoteNetworks], which: int, error: type[Exception], told: str
) -> None:
    networks = one(Failing)

    for _ in range(2):  # it lives on
        with pytest.raises(error, match=f"^{told}$") as found:
            networks.infer([np.full((2, 2, 3), which, np.uint8)], None)
    assert "Traceback" in str(found.value.__cause__)


def test_a_process_that_ends_amid_a_batch_is_told_and_the_next_warm_up_begins_another(
    one: Callable[[Callable[[], Failing]], RemoteNetworks],
) -> None:
    networks = one(Named)
    first = networks.infer(IMAGES, None).scores[0, 0]

    with pytest.raises(NetworksEndedError, match="exit code 7"):
        networks.purify(IMAGES, DRAWS)
    with pytest.raises(NetworksEndedError, match="exit code 7"):
        networks.infer(IMAGES, None)

    networks.warm_up((), 1)
    assert networks.infer(IMAGES, None).scores[0, 0] != first


def test_a_process_that_was_killed_is_told(one: Callable[[Callable[[], Failing]], RemoteNetworks]) -> None:
    before = running()
    networks = one(Named)
    (pid,) = running() - before
    os.kill(pid, signal.SIGKILL)

    with pytest.raises(NetworksEndedError, match="exit code -9"):
        networks.infer(IMAGES, None)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_does_not_end_them_before_the_gateway_has_drained(
    one: Callable[[Callable[[], Failing]], RemoteNetworks], stop: signal.Signals
) -> None:
    before = running()
    networks = one(Named)
    (pid,) = running() - before
    servers = {child for child in children(os.getpid()) if children(child)}
    for process in (pid, *servers):
        os.kill(process, stop)

    assert networks.infer(IMAGES, None).scores[0, 0] == pid
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(NetworksEndedError, match="exit code -9"):
        networks.infer(IMAGES, None)


def test_one_that_does_not_end_is_killed_and_who_waits_for_it_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "asked")
    before = running()
    networks = network_processes(partial(Stuck, tmp_path / "asked"), 2, PLACEMENT, patience=0.2)
    networks.warm_up((), 1)
    begun = running() - before
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(networks.infer, IMAGES, None)
        assert (tmp_path / "asked").read_text() == "asked"
        networks.close()
        with pytest.raises(NetworksEndedError, match="exit code -9"):
            waiting.result()

    assert not any(map(run, begun))


def test_a_process_that_hangs_is_killed_and_another_begins(tmp_path: Path) -> None:
    before = running()
    networks = network_processes(partial(Stuck, tmp_path / "asked"), 1, PLACEMENT, batch_seconds=0.2)
    networks.warm_up((), 1)
    (hanging,) = running() - before
    with structlog.testing.capture_logs() as lines, pytest.raises(NetworksEndedError, match=r"nothing for 0\.2 s"):
        networks.infer(IMAGES, None)

    assert [(line["event"], line["pid"]) for line in lines] == [("networks_hang", hanging)]
    assert not run(hanging)
    networks.warm_up((), 1)
    (another,) = running() - before
    assert another != hanging
    networks.close()


def test_what_cannot_begin_is_told_again_and_again_and_can_be_closed() -> None:
    networks = network_processes(lambda: Named(), 2, PLACEMENT)  # noqa: PLW0108 - a lambda cannot be pickled

    for _ in range(2):
        with pytest.raises(NetworksEndedError, match="could not begin"):
            networks.warm_up((), 1)
    networks.close()


def test_closing_ends_them_for_good() -> None:
    before = running()
    networks = network_processes(Named, 2, PLACEMENT)
    networks.warm_up((), 1)
    begun = running() - before
    networks.close()

    assert len(begun) == 2
    assert not any(map(run, begun))
    with pytest.raises(NetworksEndedError, match="closed"):
        networks.warm_up((), 1)


def test_another_bundle_in_the_folder_is_not_taken_for_the_one_that_was_read(bundle_folder: Path) -> None:
    make = of_bundle(bundle_folder)
    pool = make.manifest.pool.model_copy(update={"purifiers": make.manifest.pool.purifiers[1:]})
    other = dataclasses.replace(make, manifest=make.manifest.model_copy(update={"pool": pool}))
    networks = network_processes(other, 1, PLACEMENT)

    for _ in range(2):
        with pytest.raises(BundleError, match="another bundle lies here now"):
            networks.warm_up(PURIFIERS, 1)
    networks.close()


def test_networks_that_give_no_numbers_fail_the_warm_up(bundle_folder: Path) -> None:
    bundle = read_bundle(bundle_folder)
    for weights in bundle.purifiers["pgd-edsr"].parameters():
        weights.fill_(float("nan"))
    networks = LocalNetworks(bundle, "puridefense", PLACEMENT)

    with pytest.raises(FloatingPointError, match="warm-up"):
        networks.warm_up(PURIFIERS, 2)
    networks.warm_up(tuple(name for name in PURIFIERS if name != "pgd-edsr"), 2)
