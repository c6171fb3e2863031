"""The Kubernetes manifests, as kustomize builds them, against the published schemas and our settings."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.metrics import Metrics
from service.settings import Settings

VERSIONS = ["1.29.0", "1.32.0", "1.35.0"]
OVERLAYS = ["cpu", "gpu"]
WITHOUT_SCHEMA = {"ServiceMonitor"}
"""A custom resource; kubernetes-validate has only those of Kubernetes itself."""
Objects = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def built(root: Path) -> dict[str, Objects]:
    """The objects of each overlay by their kind and name."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("needs kubectl, newer than that of Debian: CONTRIBUTING.md")
    return {overlay: build(kubectl, root / "deploy" / "k8s" / "overlays" / overlay) for overlay in OVERLAYS}


def build(kubectl: str, folder: Path) -> Objects:
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    objects = [one for one in yaml.safe_load_all(done.stdout) if one]
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in objects}


@pytest.fixture(params=OVERLAYS)
def objects(request: pytest.FixtureRequest, built: dict[str, Objects]) -> Objects:
    return built[request.param]


@pytest.fixture
def pod(objects: Objects) -> dict[str, Any]:
    specification: dict[str, Any] = objects["Deployment/purigate"]["spec"]["template"]["spec"]
    return specification


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    assert isinstance(only, dict)
    return only


def written(root: Path) -> list[dict[str, Any]]:
    """Every manifest as it is written, without kustomize."""
    files = sorted((root / "deploy" / "k8s" / "base").glob("*.yaml"))
    return [one for file in files if file.name != "kustomization.yaml" for one in yaml.safe_load_all(file.read_text())]


def patches(root: Path) -> list[dict[str, Any]]:
    """What the overlays change; each is a manifest."""
    folders = [root / "deploy" / "k8s" / "overlays" / overlay for overlay in OVERLAYS]
    named = [(one, yaml.safe_load((one / "kustomization.yaml").read_text())["patches"]) for one in folders]
    return [yaml.safe_load((folder / patch["path"]).read_text()) for folder, given in named for patch in given]


def whole(manifest: dict[str, Any], root: Path) -> dict[str, Any]:
    """A Deployment with the labels that the base's kustomization adds; anything else is whole as it is written."""
    if manifest["kind"] == "Deployment":
        (labels,) = yaml.safe_load((root / "deploy" / "k8s" / "base" / "kustomization.yaml").read_text())["labels"]
        manifest["spec"]["selector"] = {"matchLabels": labels["pairs"]}
        manifest["spec"]["template"].setdefault("metadata", {})["labels"] = labels["pairs"]
    return manifest


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_and_patch_is_as_written_what_the_published_schema_says(root: Path, version: str) -> None:
    """Without kubectl, too; what kustomize makes of them is judged below."""
    checked = [one for one in (*written(root), *patches(root)) if one["kind"] not in WITHOUT_SCHEMA]
    assert len(checked) == 7 + len(OVERLAYS)
    for one in checked:
        kubernetes_validate.validate(whole(one, root), version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_what_the_published_schema_says(objects: Objects, version: str) -> None:
    checked = {name: one for name, one in objects.items() if one["kind"] not in WITHOUT_SCHEMA}
    assert len(checked) == 8
    for one in checked.values():
        kubernetes_validate.validate(one, version, strict=True)


def test_every_manifest_of_the_base_is_built(root: Path, objects: Objects) -> None:
    names = {f"{one['kind']}/{one['metadata']['name']}" for one in written(root)}
    assert names == {name for name in objects if not name.startswith("ConfigMap/")}


def test_every_manifest_is_a_resource_of_its_kustomization(root: Path) -> None:
    for kustomization in (root / "deploy" / "k8s").rglob("kustomization.yaml"):
        content = yaml.safe_load(kustomization.read_text())
        patches = [patch["path"] for patch in content.get("patches", [])]
        named = {*content["resources"], *patches}
        assert {name for name in named if not (kustomization.parent / name).exists()} == set()
        beside = {path.name for path in kustomization.parent.glob("*.yaml")} - {"kustomization.yaml"}
        assert beside <= named


def test_the_image_is_named_by_the_overlay(container: dict[str, Any]) -> None:
    assert container["image"] == "registry.example.org/purigate:0.1.0"


def test_the_probes_ask_what_they_are_for(container: dict[str, Any]) -> None:
    paths = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
    assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}


def test_it_runs_with_as_few_rights_as_it_can(pod: dict[str, Any], container: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_it_has_longer_to_end_than_it_waits_and_drains(pod: dict[str, Any], container: dict[str, Any]) -> None:
    command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    drain = Settings.model_fields["drain_timeout_ms"].default / 1000
    assert command == "sleep"
    assert pod["terminationGracePeriodSeconds"] >= int(seconds) + drain + 10


def test_no_service_can_change_a_setting(pod: dict[str, Any]) -> None:
    """One called purigate would set PURIGATE_PORT to an address."""
    assert pod["enableServiceLinks"] is False


def test_its_settings_are_ours_and_its_files_are_mounted(objects: Objects, container: dict[str, Any]) -> None:
    name = container["envFrom"][0]["configMapRef"]["name"]
    environment = objects[f"ConfigMap/{name}"]["data"] | {
        one["name"]: one["value"] for one in container["env"] if one["name"].startswith("PURIGATE_")
    }
    settings = Settings(**{key.removeprefix("PURIGATE_").lower(): value for key, value in environment.items()})
    mounts = {Path(one["mountPath"]) for one in container["volumeMounts"]}
    for file in (settings.keys_file, settings.redis_password_file, settings.sticky_secret_file):
        assert file
        assert file.parent in mounts


def test_keys_and_secrets_are_mounted_as_folders_so_that_they_can_change(container: dict[str, Any]) -> None:
    assert not [mount for mount in container["volumeMounts"] if "subPath" in mount]


def test_only_the_gpu_overlay_takes_a_gpu(built: dict[str, Objects]) -> None:
    limits = {
        overlay: objects["Deployment/purigate"]["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
        for overlay, objects in built.items()
    }
    assert limits["gpu"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in limits["cpu"]


def kernels(specification: dict[str, Any], kernel_cache: str) -> list[dict[str, Any]]:
    """The volumes at the image's folder of compiled kernels that a pod can write to."""
    (container,) = specification["containers"]
    mounts = [one for one in container.get("volumeMounts", []) if one["mountPath"] == kernel_cache]
    names = {one["name"] for one in mounts if not one.get("readOnly")}
    return [one for one in specification.get("volumes", []) if one["name"] in names]


def test_a_pod_on_a_gpu_can_keep_its_compiled_kernels(root: Path, kernel_cache: str) -> None:
    specifications = [patch["spec"]["template"]["spec"] for patch in patches(root)]
    on_gpus = [one for one in specifications if "nvidia.com/gpu" in one["containers"][0]["resources"]["limits"]]
    assert len(on_gpus) == 1
    for specification in on_gpus:
        (volume,) = kernels(specification, kernel_cache)
        assert volume["emptyDir"].get("medium", "") == ""


def test_its_kernels_are_mounted_beside_all_else(built: dict[str, Objects], kernel_cache: str) -> None:
    pods = {overlay: objects["Deployment/purigate"]["spec"]["template"]["spec"] for overlay, objects in built.items()}
    (volume,) = kernels(pods["gpu"], kernel_cache)
    pods["gpu"]["volumes"].remove(volume)
    assert pods["gpu"]["volumes"] == pods["cpu"]["volumes"]


def test_a_rollout_on_gpus_needs_no_spare_one(built: dict[str, Objects]) -> None:
    strategy = built["gpu"]["Deployment/purigate"]["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 0, "maxUnavailable": 1}


def test_the_service_of_the_public_has_no_metrics(objects: Objects) -> None:
    assert [port["targetPort"] for port in objects["Service/purigate"]["spec"]["ports"]] == ["http"]


def test_only_the_monitoring_reaches_the_metrics(objects: Objects) -> None:
    rules = objects["NetworkPolicy/purigate"]["spec"]["ingress"]
    to_metrics = [rule for rule in rules if {"port": "metrics"} in rule.get("ports", [{"port": "metrics"}])]
    assert [rule.get("from") for rule in to_metrics] == [
        [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    ]


@pytest.mark.parametrize(
    "path",
    [
        ("Deployment/purigate", "spec", "selector"),
        ("PodDisruptionBudget/purigate", "spec", "selector"),
        ("NetworkPolicy/purigate", "spec", "podSelector"),
    ],
    ids=lambda path: path[0],
)
def test_what_selects_pods_selects_those_of_the_deployment(objects: Objects, path: tuple[str, ...]) -> None:
    selector: Any = objects
    for name in path:
        selector = selector[name]
    labels = objects["Deployment/purigate"]["spec"]["template"]["metadata"]["labels"]
    assert selector["matchLabels"].items() <= labels.items()


def test_services_select_the_pods_and_the_monitor_selects_the_metrics(objects: Objects) -> None:
    labels = objects["Deployment/purigate"]["spec"]["template"]["metadata"]["labels"]
    services = {name: one for name, one in objects.items() if one["kind"] == "Service"}
    assert all(one["spec"]["selector"].items() <= labels.items() for one in services.values())
    monitor = objects["ServiceMonitor/purigate"]["spec"]
    selected = [
        name
        for name, one in services.items()
        if monitor["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
    ]
    assert selected == ["Service/purigate-metrics"]
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in {port["name"] for port in services["Service/purigate-metrics"]["spec"]["ports"]}
    job = services["Service/purigate-metrics"]["metadata"]["labels"][monitor["jobLabel"]]
    assert job == "purigate", "the rules of deploy/prometheus/ name the job"


def test_the_named_ports_are_those_of_the_image(container: dict[str, Any], root: Path) -> None:
    assert {port["containerPort"] for port in container["ports"]} == {8000, 9100}
    assert "EXPOSE 8000 9100" in (root / "Dockerfile").read_text()


def test_the_autoscaler_asks_for_a_metric_that_the_service_has_and_the_adapter_gives(
    objects: Objects, root: Path
) -> None:
    (metric,) = objects["HorizontalPodAutoscaler/purigate"]["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert name in {family.name for family in Metrics().registry.collect()}
    (rule,) = yaml.safe_load((root / "deploy" / "k8s" / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert rule["seriesQuery"].startswith(f"{name}{{")
    assert rule["name"]["as"] == name


def test_the_autoscaler_leaves_room_below_the_capacity_of_the_queue(objects: Objects) -> None:
    (metric,) = objects["HorizontalPodAutoscaler/purigate"]["spec"]["metrics"]
    target = int(metric["pods"]["target"]["averageValue"])
    assert Settings.model_fields["max_batch"].default < target < Settings.model_fields["queue_capacity"].default / 4


def test_the_budget_lets_a_node_be_drained(objects: Objects) -> None:
    budget = objects["PodDisruptionBudget/purigate"]["spec"]
    replicas = objects["HorizontalPodAutoscaler/purigate"]["spec"]["minReplicas"]
    assert budget["maxUnavailable"] < replicas


def test_no_secret_is_in_a_manifest(objects: Objects) -> None:
    assert not [name for name in objects if name.startswith("Secret/")]


def test_the_documented_command_makes_the_rules_objects_of_the_operator(root: Path, tmp_path: Path) -> None:
    text = (root / "docs" / "deployment.md").read_text()
    (command,) = [one for one in re.findall(r"```\n(.*?)```", text, re.DOTALL) if "PrometheusRule" in one]
    (tmp_path / "kubectl").write_text("#!/bin/sh\ncat\necho ---\n")
    (tmp_path / "kubectl").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-ec", command], cwd=root, env={"PATH": path}, capture_output=True, text=True, check=True
    )
    made = {one["metadata"]["name"]: one["spec"] for one in yaml.safe_load_all(done.stdout) if one}
    rules = root / "deploy" / "prometheus" / "rules"
    assert made == {f"purigate-{file.stem}": yaml.safe_load(file.read_text()) for file in rules.glob("*.yml")}


def test_the_price_is_a_line_to_take_the_mark_from(root: Path) -> None:
    text = (root / "deploy" / "k8s" / "base" / "kustomization.yaml").read_text()
    (generator,) = yaml.safe_load(text.replace("# - PURIGATE_", "- PURIGATE_"))["configMapGenerator"]
    name, _, price = generator["literals"][-1].partition("=")
    assert name == "PURIGATE_DEVICE_HOUR_PRICE_DOLLARS"
    assert Settings(device_hour_price_dollars=price).device_hour_price_dollars
