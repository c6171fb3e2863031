"""Two gateways before one process with their networks: they answer, outlive it, and change their bundles apart."""

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

if TYPE_CHECKING:
    from tests.integration.conftest import Launch, Process

Png = Callable[[int], bytes]
PURIGATE = str(Path(sys.executable).with_name("purigate"))
PATIENCE_SECONDS = 60


class Gateway:
    """A gateway whose networks are elsewhere, and a client of it."""

    def __init__(self, process: "Process") -> None:
        self.process = process
        port = process.wait_for_port()
        process.wait_for_answer(port)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS)

    def ask(self, content: bytes) -> httpx.Response:
        return self.client.post("/classify", content=content, headers={"Content-Type": "image/png"})

    def version(self, content: bytes) -> str:
        return str(self.ask(content).json()["bundle"]["version"])

    def ready(self) -> bool:
        return self.client.get("/readyz").is_success

    def value(self, sample_name: str, **labels: str) -> float:
        return sum(sample_values(self.client.get("/metrics").text, sample_name, labels))


class Deployment:
    """A host of networks and two gateways, of which the first begins before the host."""

    def __init__(self, launch: "Launch", bundle: Path, socket: Path) -> None:
        self._launch = launch
        self._flags = ("--bundle", str(bundle), "--networks-socket", str(socket))
        self.socket = socket
        self.bundle = bundle
        processes = [self._gateway()]
        processes[0].wait_for_line("networks_awaited")
        self.host = self.begin_host()
        processes.append(self._gateway())
        self.gateways = [Gateway(process) for process in processes]

    def begin_host(self) -> "Process":
        host = self._launch(PURIGATE, "networks", "--device", "cpu", *self._flags)
        host.wait_for_line("networks_ready")
        return host

    def _gateway(self) -> "Process":
        return self._launch(PURIGATE, "serve", "--port", "0", "--networks", "shared", *self._flags)


@pytest.fixture(scope="module")
def deployment(launch: "Launch", bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("shared")
    bundle = Path(shutil.copytree(bundle_folder, folder / "bundle"))
    deployment = Deployment(launch, bundle, folder / "networks.sock")
    yield deployment
    for gateway in deployment.gateways:
        gateway.client.close()


def events(process: "Process", name: str) -> int:
    return sum(one["event"] == name for one in process.log())


def test_both_answer_with_the_networks_of_one_process_and_count_for_themselves(
    deployment: Deployment, png: Png
) -> None:
    for count, gateway in enumerate(deployment.gateways, start=1):
        for _ in range(count):
            answer = gateway.ask(png(200))
            assert answer.status_code == 200
            assert sum(one["score"] for one in answer.json()["scores"]) == pytest.approx(1, abs=1e-4)
        assert gateway.value("purifier_selected_total") == 4 * count, "a patch each of a grid of 2x2"
        assert gateway.value("stage_duration_seconds_count", stage="purify") == count
        assert gateway.value("device_seconds_total", stage="classify") > 0
        assert gateway.client.get("/info").json()["device"] == "cpu"

    assert events(deployment.host, "networks_loaded") == 1


def test_they_outlive_the_process_and_find_the_next_one(deployment: Deployment, png: Png) -> None:
    deployment.host.stop(signal.SIGKILL)
    deployment.host.wait()
    refused = [gateway.ask(png(1)) for gateway in deployment.gateways]
    assert [one.status_code for one in refused] == [503, 503]
    assert all(int(one.headers["Retry-After"]) > 0 for one in refused)
    assert not any(gateway.ready() for gateway in deployment.gateways)
    assert deployment.socket.exists(), "it was left behind"

    deployment.host = deployment.begin_host()
    for gateway in deployment.gateways:
        wait_until(gateway.ready, PATIENCE_SECONDS)
        assert gateway.ask(png(1)).status_code == 200


def test_a_second_process_does_not_take_the_place_of_the_first(deployment: Deployment, launch: "Launch") -> None:
    second = launch(PURIGATE, "networks", "--networks-socket", deployment.socket)
    assert second.wait() == 1
    assert second.stderr == [f"error: {deployment.socket}: another process holds networks here"]


def test_a_new_bundle_comes_to_one_after_the_other(deployment: Deployment, png: Png) -> None:
    one, other = deployment.gateways
    before = one.version(png(1))
    new = untrained_purifier(PURIFIERS["pgd-rcan"])
    change_bundle(deployment.bundle, {"pgd-rcan": new}, version="2")
    one.process.stop(signal.SIGHUP)
    wait_until(lambda: one.version(png(1)) == "2", PATIENCE_SECONDS)
    assert other.version(png(1)) == before
    assert events(deployment.host, "networks_dropped") == 0

    other.process.stop(signal.SIGHUP)
    wait_until(lambda: other.version(png(1)) == "2", PATIENCE_SECONDS)
    deployment.host.wait_for_line("networks_dropped")
    assert events(deployment.host, "networks_loaded") == 2


def test_a_bundle_that_fails_its_warm_up_changes_nothing(deployment: Deployment, png: Png) -> None:
    one, _ = deployment.gateways
    broken = untrained_purifier(PURIFIERS["pgd-rcan"]).requires_grad_(requires_grad=False)
    for weights in broken.parameters():
        weights.fill_(float("nan"))
    change_bundle(deployment.bundle, {"pgd-rcan": broken}, version="3")
    one.process.stop(signal.SIGHUP)
    wait_until(lambda: one.value("reloads_total", what="bundle", outcome="failed") == 1, PATIENCE_SECONDS)

    assert one.version(png(1)) == "2"
    assert one.ready()


def test_a_gateway_that_ends_leaves_the_other_its_networks(deployment: Deployment, png: Png) -> None:
    one, other = deployment.gateways
    one.process.stop()

    assert one.process.wait() in {0, -signal.SIGTERM}
    assert other.ask(png(1)).status_code == 200


def test_a_stop_of_all_at_once_lets_a_gateway_drain_first(deployment: Deployment, png: Png) -> None:
    host, last = deployment.host, deployment.gateways[1]
    host.stop()
    wait_until(lambda: not deployment.socket.exists(), PATIENCE_SECONDS)
    assert last.ask(png(1)).status_code == 200

    last.process.stop()
    assert last.process.wait() in {0, -signal.SIGTERM}
    assert host.wait() == 0


def test_a_bundle_that_cannot_be_served_is_refused(launch: "Launch", tmp_path: Path) -> None:
    host = launch(PURIGATE, "networks", "--networks-socket", tmp_path / "networks.sock", "--bundle", tmp_path)
    assert host.wait() == 1
    assert len(host.stderr) == 1
    assert host.stderr[0].startswith(f"error: {tmp_path}")
    assert not (tmp_path / "networks.sock").exists()
