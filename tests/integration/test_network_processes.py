"""A gateway whose networks are in processes of their own: it answers, outlives them, and takes them with it."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.conftest import PURIFIERS, change_bundle, untrained_purifier
from tests.integration.conftest import sample_values, wait_until
from tests.processes import children, processes_of_networks, run

if TYPE_CHECKING:
    from tests.integration.conftest import Launch, Process

Png = Callable[[int], bytes]
PURIGATE = str(Path(sys.executable).with_name("purigate"))
PATIENCE_SECONDS = 60


class Running:
    """A gateway with two processes of networks, and a client of it."""

    def __init__(self, process: "Process") -> None:
        self.process = process
        port = process.wait_for_port()
        process.wait_for_answer(port)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS)

    @property
    def networks(self) -> set[int]:
        return processes_of_networks(self.process.pid)

    def ask(self, content: bytes) -> httpx.Response:
        return self.client.post("/classify", content=content, headers={"Content-Type": "image/png"})

    def value(self, sample_name: str, **labels: str) -> float:
        return sum(sample_values(self.client.get("/metrics").text, sample_name, labels))

    def ready(self) -> bool:
        return self.client.get("/readyz").is_success


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that is changed while it is served."""
    return Path(shutil.copytree(bundle_folder, tmp_path_factory.mktemp("networks") / "bundle"))


@pytest.fixture(scope="module")
def running(bundle: Path, launch: "Launch") -> Iterator[Running]:
    flags = ("--port", "0", "--device", "cpu", "--networks", "processes", "--workers", "2", "--bundle")
    running = Running(launch(PURIGATE, "serve", *flags, bundle))
    yield running
    running.client.close()


def test_it_answers_and_counts_as_with_networks_of_its_own(running: Running, png: Png) -> None:
    answer = running.ask(png(200))

    assert answer.status_code == 200
    assert sum(one["score"] for one in answer.json()["scores"]) == pytest.approx(1, abs=1e-4)
    assert len(running.networks) == 2
    assert running.value("purifier_selected_total") == 4, "a patch each of a grid of 2x2"
    assert running.value("stage_duration_seconds_count", stage="purify") == 1
    assert running.value("device_seconds_total", stage="classify") > 0


def test_it_outlives_its_networks_and_begins_them_again(running: Running, png: Png) -> None:
    before = running.networks
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    refused = running.ask(png(1))
    wait_until(running.ready, PATIENCE_SECONDS)

    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert running.ask(png(1)).status_code == 200
    assert len(running.networks) == 2
    assert not running.networks & before


def test_a_new_bundle_brings_its_own_and_the_old_ones_end(running: Running, bundle: Path, png: Png) -> None:
    before = running.networks
    change_bundle(bundle, version="2")
    running.process.stop(signal.SIGHUP)
    wait_until(lambda: running.ask(png(1)).json()["bundle"]["version"] == "2", PATIENCE_SECONDS)
    wait_until(lambda: not any(map(run, before)), PATIENCE_SECONDS)

    assert len(running.networks) == 2


def test_a_bundle_that_fails_its_warm_up_leaves_no_process_behind(running: Running, bundle: Path, png: Png) -> None:
    before = running.networks
    broken = untrained_purifier(PURIFIERS["pgd-rcan"]).requires_grad_(requires_grad=False)
    for weights in broken.parameters():
        weights.fill_(float("nan"))
    change_bundle(bundle, {"pgd-rcan": broken}, version="3")
    running.process.stop(signal.SIGHUP)
    wait_until(lambda: running.value("reloads_total", what="bundle", outcome="failed") == 1, PATIENCE_SECONDS)

    assert running.ask(png(1)).json()["bundle"]["version"] == "2"
    assert running.networks == before


@pytest.mark.parametrize(
    ("stop", "everyone"), [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGKILL, False)]
)
def test_none_outlives_it(launch: "Launch", bundle_folder: Path, stop: signal.Signals, *, everyone: bool) -> None:
    flags = ("--port", "0", "--device", "cpu", "--networks", "processes", "--workers", "1", "--bundle")
    running = Running(launch(PURIGATE, "serve", *flags, bundle_folder))
    networks = running.networks
    running.client.close()
    if everyone:  # as a service manager stops all processes of a service
        for pid in networks | children(running.process.pid):
            os.kill(pid, stop)
    running.process.stop(stop)
    status = running.process.wait()
    wait_until(lambda: not any(map(run, networks)), PATIENCE_SECONDS)

    assert len(networks) == 1
    assert status in ({0, -signal.SIGTERM} if stop is signal.SIGTERM else {-signal.SIGKILL})
