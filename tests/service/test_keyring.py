"""The keys that are accepted now, and how they change."""

import asyncio
from pathlib import Path

import pytest
import structlog

from service.errors import UnauthenticatedError
from service.keyring import Keyring
from service.keys import KeysFile, KeysFileError
from service.metrics import Metrics


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def alice(path: Path) -> str:
    keys, secret = KeysFile().issue("alice")
    keys.write(path)
    return secret


def reloads(metrics: Metrics, outcome: str) -> float | None:
    return metrics.registry.get_sample_value("purigate_reloads_total", {"what": "keys", "outcome": outcome})


def test_a_key_that_is_added_is_accepted_once_the_file_was_looked_at(path: Path, alice: str, metrics: Metrics) -> None:
    ring = Keyring(path, metrics)
    keys, bob = KeysFile.read(path).issue("bob")
    keys.write(path)
    with pytest.raises(UnauthenticatedError):
        ring.identify(bob)
    ring.refresh()
    assert [ring.identify(secret).id for secret in (alice, bob)] == ["alice", "bob"]
    assert reloads(metrics, "done") == 1


def test_a_key_that_was_revoked_is_refused_once_the_file_was_looked_at(
    path: Path, alice: str, metrics: Metrics
) -> None:
    ring = Keyring(path, metrics)
    KeysFile.read(path).revoke("alice").write(path)
    ring.refresh()
    with pytest.raises(UnauthenticatedError):
        ring.identify(alice)


def test_a_file_that_did_not_change_is_not_read_again(path: Path, alice: str, metrics: Metrics) -> None:  # noqa: ARG001
    ring = Keyring(path, metrics)
    ring.refresh()
    assert reloads(metrics, "done") == 0


@pytest.mark.parametrize("broken", ["my diary", None], ids=["no keys file", "no file"])
def test_a_file_that_cannot_be_read_leaves_the_keys_as_they_were_and_says_why_once(
    path: Path, alice: str, metrics: Metrics, broken: str | None
) -> None:
    ring = Keyring(path, metrics)
    if broken is None:
        path.unlink()
    else:
        path.write_text(broken)
    with structlog.testing.capture_logs() as lines:
        ring.refresh()
        ring.refresh()
    assert ring.identify(alice).id == "alice"
    assert [(line["event"], "keys.json" in line["reason"]) for line in lines] == [("keys_not_reloaded", True)]
    assert reloads(metrics, "failed") == 1


def test_a_file_that_is_mended_is_read(path: Path, alice: str, metrics: Metrics) -> None:
    ring = Keyring(path, metrics)
    whole = path.read_text()
    path.write_text("my diary")
    ring.refresh()
    path.write_text(whole)
    ring.refresh()
    assert ring.identify(alice).id == "alice"
    assert reloads(metrics, "done") == 1


async def test_a_bug_in_one_look_is_told_and_does_not_end_the_following(
    path: Path,
    alice: str,  # noqa: ARG001 - the file
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.keyring.LOOK_SECONDS", 0.01)
    ring = Keyring(path, metrics)
    looks = 0
    looked_again = asyncio.Event()

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise RuntimeError("a bug")
        looked_again.set()

    monkeypatch.setattr(ring, "refresh", look)
    with structlog.testing.capture_logs() as lines:
        following = asyncio.create_task(ring.follow())
        await asyncio.wait_for(looked_again.wait(), 30)
        following.cancel()
    assert [line["event"] for line in lines] == ["keys_not_followed"]


def test_a_file_that_cannot_be_read_at_the_start_is_an_error(path: Path, metrics: Metrics) -> None:
    with pytest.raises(KeysFileError):
        Keyring(path, metrics)
