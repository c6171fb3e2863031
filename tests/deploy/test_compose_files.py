"""The compose files as they are written, for where docker-compose is not installed."""

from pathlib import Path
from typing import Any

import pytest
import yaml

FILES = (
    "docker-compose.yml",
    "docker-compose.cpu.yml",
    "docker-compose.replicas.yml",
    "docker-compose.shared.yml",
    "deploy/compose/gateway.yml",
)


@pytest.fixture
def written(root: Path) -> dict[str, dict[str, Any]]:
    """Services by file and name."""
    services = {file: yaml.safe_load((root / file).read_text())["services"] for file in FILES}
    return {f"{file}: {name}": one for file, found in services.items() for name, one in found.items()}


def test_what_is_started_is_hardened_where_it_is_defined(written: dict[str, dict[str, Any]]) -> None:
    defined = {name: one for name, one in written.items() if "image" in one}
    assert len(defined) == 9
    for name, service in defined.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_only_the_gateway_the_entry_and_grafana_have_ports_and_on_loopback(written: dict[str, dict[str, Any]]) -> None:
    ports = {name.split(": ")[1]: one["ports"] for name, one in written.items() if "ports" in one}
    assert set(ports) == {"gateway", "entry", "grafana"}
    assert all("127.0.0.1:" in port for published in ports.values() for port in published)


def test_what_is_extended_is_there(written: dict[str, dict[str, Any]]) -> None:
    for name, service in written.items():
        if extended := service.get("extends"):
            assert f"{extended['file']}: {extended['service']}" in written, name


def test_what_is_extended_depends_on_nothing(written: dict[str, dict[str, Any]]) -> None:
    """Every part lives without the others, and older releases of Compose cannot extend what depends."""
    assert not [name for name, service in written.items() if "depends_on" in service]
