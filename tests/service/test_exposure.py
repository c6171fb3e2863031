"""When the service refuses to be reachable, and when it warns."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from models.bundle import read_manifest
from service.exposure import ExposedError, require_safe_address, warn_of_public_bundle
from service.loading import load_engine
from service.metrics import Metrics
from service.settings import Settings, embedded_bundle

LOOPBACK = ["127.0.0.1", "127.8.8.8", "localhost", "::1"]
REACHABLE = ["0.0.0.0", "::", "192.168.1.7", "10.0.0.1", "example.org", ""]


@pytest.mark.parametrize("host", LOOPBACK)
def test_a_loopback_address_needs_no_key(host: str) -> None:
    require_safe_address(Settings(host=host))


@pytest.mark.parametrize("host", REACHABLE)
def test_an_address_that_others_can_reach_is_refused_without_a_key(host: str) -> None:
    with pytest.raises(ExposedError, match="--insecure"):
        require_safe_address(Settings(host=host))


@pytest.mark.parametrize("host", REACHABLE)
def test_it_is_served_with_a_keys_file(host: str, tmp_path: Path) -> None:
    require_safe_address(Settings(host=host, keys_file=tmp_path / "keys.json"))


@pytest.mark.parametrize("host", REACHABLE)
def test_it_is_served_if_told_so(host: str) -> None:
    require_safe_address(Settings(host=host, insecure=True))


EMBEDDED = read_manifest(embedded_bundle())
OTHER = EMBEDDED.model_copy(
    update={"pool": EMBEDDED.pool.model_copy(update={"purifiers": EMBEDDED.pool.purifiers[:3]})}
)


@pytest.mark.parametrize("setting", [{"host": "0.0.0.0", "insecure": True}, {"keys_file": "keys.json"}])
def test_a_bundle_that_anybody_can_download_is_told_where_it_serves_others(setting: dict[str, object]) -> None:
    copied = EMBEDDED.model_copy(update={"name": "mine"})
    with capture_logs() as lines:
        warn_of_public_bundle(Settings(**setting), copied)  # type: ignore[arg-type]

    assert [(line["event"], line["log_level"]) for line in lines] == [("public_bundle", "warning")]


def test_it_is_not_told_to_who_tries_it_or_serves_another() -> None:
    with capture_logs() as lines:
        warn_of_public_bundle(Settings(), EMBEDDED)
        warn_of_public_bundle(Settings(host="0.0.0.0", insecure=True), OTHER)

    assert lines == []


def test_it_is_told_at_every_load_so_after_a_reload_too() -> None:
    settings = Settings(host="0.0.0.0", insecure=True, device="cpu", defense="none")
    for _ in range(2):
        with capture_logs() as lines:
            load_engine(settings, Metrics()).close()

        assert [line["event"] for line in lines if line["log_level"] == "warning"] == ["public_bundle"]
