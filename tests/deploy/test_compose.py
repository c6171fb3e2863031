"""The compose files, as docker-compose resolves them."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import ENVIRONMENT_PREFIX, Settings

Compose = Callable[..., dict[str, Any]]
GPU = ("docker-compose.yml",)
CPU = ("docker-compose.cpu.yml",)
REPLICAS = ("docker-compose.yml", "docker-compose.replicas.yml")
SHARED = ("docker-compose.shared.yml",)
COMBINATIONS = [GPU, CPU, REPLICAS, SHARED]
REPLICATED = ("gateway", "gateway-2")
GATEWAYS = (*REPLICATED, "gateway-3", "gateway-4")
WITHOUT_HEALTH_CHECK = {"keys", "dcgm-exporter", *GATEWAYS}
"""A command, an image without a shell, and the image that has a check of its own."""
LOOPBACK = "127.0.0.1:"
UNIT_SECONDS = {"s": 1, "m": 60}


@pytest.fixture(params=COMBINATIONS, ids="+".join)
def project(request: pytest.FixtureRequest, compose: Compose) -> dict[str, Any]:
    """Each documented combination of files."""
    return compose(*request.param)


def services(project: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = project["services"]
    return found


def seconds(duration: str) -> int:
    return sum(int(number) * UNIT_SECONDS[unit] for number, unit in re.findall(r"(\d+)([sm])", duration))


def devices(service: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    )
    return found


def test_every_service_runs_with_as_few_rights_as_it_can(project: dict[str, Any]) -> None:
    for name, service in services(project).items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "pid", "ipc"} & set(service), name
        assert service.get("network_mode", "none") == "none", name


def test_no_service_runs_as_root_but_the_one_that_talks_to_the_driver(project: dict[str, Any]) -> None:
    root = {name for name, one in services(project).items() if one.get("user", "0").startswith("0")}
    assert root - {"dcgm-exporter"} <= {"keys", "networks", *GATEWAYS}, (
        "their image has its own user: see test_dockerfile.py"
    )


def test_nothing_is_published_beyond_this_host(project: dict[str, Any]) -> None:
    ports = {name: one["ports"] for name, one in services(project).items() if one.get("ports")}
    assert set(ports) <= {"gateway", "entry", "grafana"}
    assert all(port.startswith(LOOPBACK) for published in ports.values() for port in published)


def test_only_the_gateway_and_its_entry_can_be_published_beyond_it(compose: Compose) -> None:
    project = compose(*REPLICAS, GATEWAY_PUBLISH="0.0.0.0:80", ENTRY_PUBLISH="0.0.0.0:81", GRAFANA_PORT="82")
    ports = {name: one["ports"] for name, one in services(project).items() if one.get("ports")}
    assert ports == {
        "gateway": ["0.0.0.0:80:8000/tcp"],
        "entry": ["0.0.0.0:81:8080/tcp"],
        "grafana": ["127.0.0.1:82:3000/tcp"],
    }


def test_the_port_of_the_metrics_is_published_by_nothing(project: dict[str, Any]) -> None:
    assert ":9100" not in str([one.get("ports") for one in services(project).values()])


def test_what_stands_behind_the_gateway_cannot_reach_out(project: dict[str, Any]) -> None:
    open_networks = {name for name, network in project["networks"].items() if not network.get("internal")}
    outside = {name for name, one in services(project).items() if open_networks & set(one.get("networks", {}))}
    assert outside <= {"gateway", "entry", "grafana"}


@pytest.mark.parametrize(("files", "gateways"), [(REPLICAS, REPLICATED), (SHARED, GATEWAYS)])
def test_the_entry_sees_gateways_alone(compose: Compose, files: tuple[str, ...], gateways: tuple[str, ...]) -> None:
    found = services(compose(*files))
    networks = set(found["entry"]["networks"])
    assert {name for name, one in found.items() if networks & set(one.get("networks", {}))} == {"entry", *gateways}


@pytest.mark.parametrize(("files", "gateways"), [(REPLICAS, REPLICATED), (SHARED, GATEWAYS)])
@pytest.mark.parametrize("network", ["serving", "monitoring"])
def test_all_gateways_are_found_by_one_name(
    compose: Compose, files: tuple[str, ...], gateways: tuple[str, ...], network: str
) -> None:
    found = services(compose(*files))
    named = {
        name
        for name, one in found.items()
        if network in one.get("networks", {}) and "gateway" in {name, *(one["networks"][network].get("aliases", []))}
    }
    assert named == set(gateways)


def test_prometheus_asks_services_that_it_reaches_on_the_ports_where_they_answer(compose: Compose, root: Path) -> None:
    found = services(compose(*GPU))
    jobs = yaml.safe_load((root / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    asked = {name: one["port"] for job in jobs for one in job.get("dns_sd_configs", ()) for name in one["names"]}
    assert set(asked) == {"gateway", "redis-exporter", "dcgm-exporter"}
    for name in asked:
        assert set(found[name]["networks"]) & set(found["prometheus"]["networks"]), name
    metrics = re.search(r"PURIGATE_METRICS_PORT=(\d+)", (root / "Dockerfile").read_text())
    assert metrics
    assert asked["gateway"] == int(metrics.group(1))
    assert f":{asked['redis-exporter']}/" in found["redis-exporter"]["healthcheck"]["test"][-1]


def test_only_where_gateways_share_a_device_prometheus_is_told_so(project: dict[str, Any], root: Path) -> None:
    rules = f"{root / 'deploy' / 'prometheus' / 'shared'}:/etc/prometheus/shared:ro"
    assert (rules in services(project)["prometheus"]["volumes"]) == ("networks" in services(project))
    configuration = yaml.safe_load((root / "deploy" / "prometheus" / "prometheus.yml").read_text())
    assert "shared/*.yml" in configuration["rule_files"]


@pytest.mark.parametrize(("files", "gateways"), [(REPLICAS, REPLICATED), (SHARED, GATEWAYS)])
def test_gateways_share_redis_and_the_sticky_secret(
    compose: Compose, files: tuple[str, ...], gateways: tuple[str, ...]
) -> None:
    one, *others = (services(compose(*files))[name] for name in gateways)
    for other in others:
        assert one["environment"] == other["environment"]
        assert one["secrets"] == other["secrets"]
        assert one["volumes"] == other["volumes"]


def test_each_replica_has_a_gpu_of_its_own(compose: Compose) -> None:
    found = services(compose(*REPLICAS))
    assert [devices(found[name])[0]["device_ids"] for name in REPLICATED] == [["0"], ["1"]]


def test_gateways_that_share_networks_have_no_gpu_and_ask_who_has_it(compose: Compose, kernel_cache: str) -> None:
    found = services(compose(*SHARED, PURIGATE_PRECISION="bfloat16", PURIGATE_WORKERS="2", PURIGATE_MAX_BATCH="64"))
    host = found["networks"]
    assert devices(host)[0]["device_ids"] == ["0"]
    assert host["environment"]["PURIGATE_PRECISION"] == "bfloat16"
    assert f"kernels:{kernel_cache}:rw" in host["volumes"]
    for name in GATEWAYS:
        gateway = found[name]
        told = {
            key.removeprefix(ENVIRONMENT_PREFIX).lower(): value
            for key, value in gateway["environment"].items()
            if value
        }
        socket = {key: told[key] for key in ("networks", "networks_socket", "precision", "max_batch")}
        assert Settings(**socket).networks_socket == Path(host["environment"]["PURIGATE_NETWORKS_SOCKET"])
        assert not devices(gateway)
        assert "workers" not in told
        assert "sockets:/run/purigate:ro" in gateway["volumes"]
        for shared in ("PURIGATE_BUNDLE", "PURIGATE_DEFENSE", "PURIGATE_MAX_BATCH", "PURIGATE_DRAIN_TIMEOUT_MS"):
            assert gateway["environment"][shared] == host["environment"][shared]
        assert set(gateway["volumes"]) & set(host["volumes"]) == {one for one in host["volumes"] if "/bundles:" in one}


def test_without_a_gpu_none_is_asked_for(compose: Compose) -> None:
    found = services(compose(*CPU))
    assert all(not devices(one) for one in found.values())
    assert found["gateway"]["environment"]["PURIGATE_DEVICE"] == "cpu"
    assert found["gateway"]["environment"]["PURIGATE_NETWORKS"] == "processes"


@pytest.mark.parametrize("files", [GPU, REPLICAS], ids="+".join)
def test_a_gateway_on_a_gpu_has_a_volume_for_its_compiled_kernels(
    compose: Compose, files: tuple[str, ...], kernel_cache: str
) -> None:
    """Its root is read-only, and from what Docker mounts as tmpfs no code can be loaded."""
    project = compose(*files)
    for name in set(GATEWAYS) & set(services(project)):
        service = services(project)[name]
        assert devices(service), name
        assert "TRITON_CACHE_DIR" not in service["environment"], name
        mounts = {target: (source, mode) for source, target, mode in (one.split(":") for one in service["volumes"])}
        volume, mode = mounts[kernel_cache]
        assert mode == "rw", name
        assert project["volumes"][volume] in ({}, None), "neither a tmpfs nor anything else with options"
        assert kernel_cache not in [mount.split(":")[0] for mount in service["tmpfs"]], name


def test_without_a_gpu_all_else_is_the_same(compose: Compose, kernel_cache: str) -> None:
    gpu, cpu = compose(*GPU), compose(*CPU)
    for project in (gpu, cpu):
        project["services"].pop("dcgm-exporter", None)
        project["volumes"].pop("kernels", None)
        volumes = project["services"]["gateway"]["volumes"]
        project["services"]["gateway"]["volumes"] = [one for one in volumes if f":{kernel_cache}:" not in one]
        project["services"]["gateway"].pop("deploy", None)
        for own in ("PURIGATE_DEVICE", "PURIGATE_NETWORKS"):
            project["services"]["gateway"]["environment"].pop(own, None)
    assert cpu == gpu


def test_a_gateway_has_longer_to_stop_than_it_needs_to_drain(project: dict[str, Any]) -> None:
    drain = Settings.model_fields["drain_timeout_ms"].default / 1000
    for name in {*GATEWAYS, "networks"} & set(services(project)):
        assert seconds(services(project)[name]["stop_grace_period"]) >= drain + 10
    if entry := services(project).get("entry"):
        assert seconds(entry["stop_grace_period"]) >= drain + 10


def test_every_service_that_stays_is_watched_and_started_again(project: dict[str, Any]) -> None:
    for name, service in services(project).items():
        assert service["restart"] == ("no" if name == "keys" else "unless-stopped"), name
        assert ("healthcheck" in service) == (name not in WITHOUT_HEALTH_CHECK), name


def test_every_log_is_bounded(project: dict[str, Any]) -> None:
    for name, service in services(project).items():
        assert {"max-size", "max-file"} <= set(service["logging"]["options"]), name


def test_every_image_of_others_has_an_exact_version(project: dict[str, Any]) -> None:
    for name, service in services(project).items():
        image, _, tag = service["image"].rpartition(":")
        assert image, name
        assert re.search(r"\d+\.\d+\.\d+", tag), name


def test_no_secret_is_told_by_an_environment_or_an_argument(project: dict[str, Any]) -> None:
    for name, service in services(project).items():
        told = {key: value for key, value in service.get("environment", {}).items() if value is not None}
        secret = {key for key in told if re.search(r"PASSWORD|SECRET|TOKEN", key)}
        assert all(told[key].startswith("/run/secrets/") for key in secret), name
        assert "@" not in told.get("PURIGATE_REDIS_URL", ""), name


def test_every_secret_is_a_file_that_make_secrets_writes(project: dict[str, Any], root: Path) -> None:
    written = set(re.findall(r"[a-z]+_[a-z_]+", (root / "deploy" / "secrets.sh").read_text()))
    for name, secret in project["secrets"].items():
        assert Path(secret["file"]) == root / "secrets" / name
        assert name in written


def test_grafana_has_no_default_password_and_lets_nobody_in_without_one(project: dict[str, Any]) -> None:
    environment = services(project)["grafana"]["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_admin_password"
    assert environment["GF_SECURITY_SECRET_KEY__FILE"] == "/run/secrets/grafana_secret_key"
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == environment["GF_USERS_ALLOW_SIGN_UP"] == "false"


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs" / "deployment.md").read_text()


def documented_recreation(page: str, removed: str) -> str:
    """The command of the page that follows the removal of a secret."""
    found = re.search(rf"^rm secrets/{removed}.*\n(docker compose up -d --force-recreate .*)$", page, re.MULTILINE)
    assert found
    return found.group(1)


@pytest.mark.parametrize("files", COMBINATIONS, ids="+".join)
@pytest.mark.parametrize("secret", ["redis_password", "sticky_secret"])
def test_a_rotation_recreates_whatever_has_the_secret(
    compose: Compose, root: Path, page: str, files: tuple[str, ...], secret: str
) -> None:
    shim = 'docker() { case "$2" in up) shift 4; echo "$@";; config) shift; docker-compose "$@";; esac; }'
    shell = shutil.which("bash")
    assert shell
    done = subprocess.run(
        [shell, "-c", f"{shim}\n{documented_recreation(page, secret)}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env={"PATH": os.environ["PATH"], "COMPOSE_FILE": ":".join(files)},
    )
    of_redis = {"redis_password", "redis_exporter_passwords"}
    rotated = of_redis if secret in of_redis else {secret}
    holders = {
        name
        for name, one in services(compose(*files)).items()
        if rotated & {each["source"] for each in one.get("secrets", [])}
    }
    assert set(done.stdout.split()) == holders


def test_what_is_backed_up_is_in_the_volumes_of_the_project_whatever_its_name(
    project: dict[str, Any], page: str
) -> None:
    loops = re.findall(r"^for one in (.*);", page, re.MULTILINE)
    saved, restored = (dict(re.findall(r"(\w+):(/\S+)", loop)) for loop in loops)
    assert saved == restored
    for name, folder in saved.items():
        assert f"{name}:{folder}:rw" in services(project)[name]["volumes"]
    assert set(re.findall(r"^\| .* \| volume `(\w+)`", page, re.MULTILINE)) == {"keys", *saved}
    assert not re.search(r"\bpurigate_(?:" + "|".join(project["volumes"]) + r")\b", page)


def test_everything_that_is_mounted_exists(project: dict[str, Any]) -> None:
    sources = {volume.split(":")[0] for one in services(project).values() for volume in one.get("volumes", [])}
    paths = {Path(source) for source in sources if source.startswith("/")}
    assert {path for path in paths if not path.exists()} == set()


def test_named_volumes_are_declared(project: dict[str, Any]) -> None:
    sources = {volume.split(":")[0] for one in services(project).values() for volume in one.get("volumes", [])}
    assert {source for source in sources if not source.startswith("/")} == set(project["volumes"])


def test_keys_are_written_by_the_tool_and_only_read_by_the_gateway(project: dict[str, Any]) -> None:
    assert services(project)["keys"]["volumes"] == ["keys:/var/lib/purigate:rw"]
    assert "keys:/var/lib/purigate:ro" in services(project)["gateway"]["volumes"]


def test_a_gateway_takes_every_setting_that_a_deployment_may_change(root: Path) -> None:
    """Those of the container itself are fixed, by the image or in the file."""
    fixed = {"host", "port", "metrics_port", "device", "insecure", "output", "sticky_secret", "networks_socket"}
    audit = {"audit_file", "audit_max_bytes", "audit_backups"}
    text = (root / "deploy" / "compose" / "gateway.yml").read_text()
    declared = set(yaml.safe_load(text)["services"]["gateway"]["environment"])
    expected = {ENVIRONMENT_PREFIX + name.upper() for name in set(Settings.model_fields) - fixed - audit}
    assert declared == expected


def test_a_setting_of_the_environment_reaches_the_gateway(compose: Compose) -> None:
    environment = services(compose(*CPU, PURIGATE_MAX_BATCH="7"))["gateway"]["environment"]
    assert environment["PURIGATE_MAX_BATCH"] == "7"


def test_the_example_of_an_environment_names_what_the_files_read_with_their_defaults(root: Path) -> None:
    example = dict(re.findall(r"^# ([A-Z][A-Z0-9_]+)=(.*)$", (root / ".env.example").read_text(), re.MULTILINE))
    files = [*root.glob("docker-compose*.yml"), root / "deploy" / "compose" / "gateway.yml"]
    text = "\n".join(file.read_text() for file in files)
    read = dict(re.findall(r"\$\{([A-Z0-9_]+):-([^}]*)\}", text))
    passed = set(re.findall(r"^ +(PURIGATE_\w+):$", text, re.MULTILINE))
    assert set(example) == set(read) | passed | {"COMPOSE_FILE"}
    assert {name: example[name] for name in read} == read
    for name in passed - {"PURIGATE_BUNDLE", "PURIGATE_DECODE_THREADS", "PURIGATE_WORKERS", *read}:
        field = Settings.model_fields[name.removeprefix(ENVIRONMENT_PREFIX).lower()]
        assert example[name] == str(field.default).lower(), name
