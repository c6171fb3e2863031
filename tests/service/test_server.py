"""When the service refuses to be reachable."""

from pathlib import Path

import pytest

from service.server import ExposedError, require_safe_address
from service.settings import Settings

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
