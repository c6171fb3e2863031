"""A real Prometheus scrapes a real gateway under a little load: every panel and every rule gives data."""

import json
import math
import re
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest
import yaml

from deploy.grafana.render import main as render
from service.keys import KeysFile

if TYPE_CHECKING:
    from tests.integration.conftest import Launch

DEPLOY = Path(__file__).parents[2] / "deploy"
PURIGATE = str(Path(sys.executable).with_name("purigate"))
Series = list[dict[str, Any]]
NOT_HERE = {
    "DCGM_FI_DEV_GPU_UTIL": "needs a GPU and NVIDIA's exporter",
    "DCGM_FI_DEV_FB_USED": "needs a GPU and NVIDIA's exporter",
    "redis_up": "needs the Redis exporter",
    "redis_memory_used_bytes": "needs the Redis exporter",
    "redis_memory_max_bytes > 0": "needs the Redis exporter",
}


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that scrapes.

    Attributes:
        client: of its HTTP API.
        eventually: waits until something comes true.
    """

    client: httpx.Client
    eventually: Callable[[Callable[[], bool]], None]

    def ask(self, path: str, **parameters: str) -> dict[str, Any]:
        answer = self.client.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    def series(self, query: str) -> Series:
        """What a query gives now, less what is no number."""
        found = self.ask("query", query=query)["result"]
        return [one for one in found if not math.isnan(float(one["value"][1]))]

    def wait_for(self, query: str) -> Series:
        self.eventually(lambda: bool(self.series(query)))
        return self.series(query)

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def ready(self) -> bool:
        try:
            return self.client.get("/-/ready").is_success
        except httpx.TransportError:
            return False


class Load:
    """Asks a gateway in all the ways that make a series, again and again."""

    def __init__(self, port: int, secrets: list[str], image: bytes) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._secrets = secrets
        self._image = image
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._enough.wait(0.2):
                for secret in self._secrets:
                    headers = {"X-API-Key": secret, "Content-Type": "image/png"}
                    client.post("/classify", content=self._image, headers=headers)
                client.post("/classify", content=b"hello", headers=headers)


def scraping(gateway: int, own: int) -> dict[str, Any]:
    """Our configuration; only where the targets are, and how often they are asked, is another."""
    configuration: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(DEPLOY / "prometheus" / file) for file in configuration["rule_files"]]
    here = {"purigate": [f"127.0.0.1:{gateway}"], "prometheus": [f"127.0.0.1:{own}"]}
    for job in configuration["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": here.get(job["job_name"], [])}]
    return configuration


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def gateway(launch: "Launch", tmp_path_factory: pytest.TempPathFactory, png: Callable[[int], bytes]) -> Iterator[int]:
    """The port of a gateway of the embedded bundle under load, of a key with a small quota and one without."""
    keys, small = KeysFile().issue("small", quota="1/day")
    keys, large = keys.issue("large")
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    keys.write(file)
    price = ("--device-hour-price-dollars", "0.01")
    process = launch(PURIGATE, "serve", "--port", "0", "--device", "cpu", "--keys-file", file, *price)
    port = process.wait_for_port()
    process.wait_for_answer(port)
    with Load(port, [small, large], png(1)):
        yield port


@pytest.fixture(scope="module")
def prometheus(
    launch: "Launch",
    gateway: int,
    tmp_path_factory: pytest.TempPathFactory,
    eventually: Callable[[Callable[[], bool]], None],
) -> Iterator[Prometheus]:
    program = shutil.which("prometheus")
    assert program
    folder = tmp_path_factory.mktemp("prometheus")
    port = free_port()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(scraping(gateway, port)))
    launch(
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        started = Prometheus(client, eventually)
        eventually(started.ready)
        yield started


def targets() -> list[Any]:
    """Every query of every panel, as Grafana would send it, and its legend."""
    boards = [json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))]
    return [
        pytest.param(
            target["expr"].replace("$instance", ".*").replace("$rate", "1m"),
            target["legendFormat"],
            id=f"{board['uid']}: {panel['title']} {target['refId']}",
        )
        for board in boards
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]


def recorded() -> list[str]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "rules" / "recording.yml").read_text())["groups"]
    return [rule["record"] for group in groups for rule in group["rules"]]


needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="needs Prometheus: Debian's package prometheus"
)


@needs_prometheus
@pytest.mark.parametrize(("query", "legend"), targets())
def test_a_panel_shows_data(prometheus: Prometheus, query: str, legend: str) -> None:
    if query in NOT_HERE:
        assert prometheus.series(query) == []
        return
    series = prometheus.wait_for(query)
    labels = set(re.findall(r"{{(\w+)}}", legend))
    assert [one["metric"] for one in series if not labels <= set(one["metric"])] == []


@needs_prometheus
@pytest.mark.parametrize("metric", recorded())
def test_a_recorded_metric_has_data(prometheus: Prometheus, metric: str) -> None:
    prometheus.wait_for(metric)


@needs_prometheus
def test_every_rule_is_evaluated_without_an_error(prometheus: Prometheus) -> None:
    prometheus.eventually(lambda: all(rule["health"] != "unknown" for rule in prometheus.rules()))
    found = prometheus.rules()
    assert {rule["name"] for rule in found} >= set(recorded())
    assert [rule for rule in found if rule["health"] != "ok"] == []


@needs_prometheus
def test_nothing_that_is_well_is_pending_or_fires(prometheus: Prometheus) -> None:
    prometheus.wait_for("job:purigate_dollars_per_million_queries:ratio_rate15m")
    states = {rule["name"]: rule["state"] for rule in prometheus.rules() if rule["type"] == "alerting"}
    del states["PurigateLatencyHigh"]  # as this machine has time
    assert set(states.values()) == {"inactive"}, states


@needs_prometheus
def test_the_graphs_of_a_dashboard_can_be_drawn(prometheus: Prometheus, tmp_path: Path) -> None:
    prometheus.wait_for('sum by (stage) (rate(purigate_device_seconds_total{stage="purify"}[1m]))')
    render(str(prometheus.client.base_url), tmp_path / "cost.svg", minutes=1)
    drawn = (tmp_path / "cost.svg").read_text()
    assert "Device time a query, by stage" in drawn
    assert "purify" in drawn


def test_what_cannot_be_shown_here_is_asked_by_some_panel() -> None:
    assert set(NOT_HERE) <= {target.values[0] for target in targets()}
