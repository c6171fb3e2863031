"""`make secrets`."""

import json
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

RANDOM = {"redis_password", "sticky_secret", "grafana_admin_password", "grafana_secret_key"}
EXPORTER = "redis_exporter_passwords"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "secrets"


def make(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(root / "deploy" / "secrets.sh"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_each_secret_is_strong_and_its_own(root: Path, folder: Path) -> None:
    assert make(root, folder).returncode == 0
    made = contents(folder)
    assert set(made) == RANDOM | {EXPORTER}
    secrets = {made[name] for name in RANDOM}
    assert len(secrets) == len(RANDOM)
    assert all(re.fullmatch("[0-9a-f]{64}", secret) for secret in secrets)


def test_the_exporter_is_given_the_password_of_redis(root: Path, folder: Path) -> None:
    make(root, folder)
    made = contents(folder)
    assert json.loads(made[EXPORTER]) == {"redis://redis:6379": made["redis_password"]}


def test_only_their_owner_comes_to_them_and_containers_can_read_them(root: Path, folder: Path) -> None:
    make(root, folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}


def test_what_is_there_is_kept(root: Path, folder: Path) -> None:
    make(root, folder)
    before = contents(folder)
    assert make(root, folder).returncode == 0
    assert contents(folder) == before


def test_one_that_was_removed_is_made_anew(root: Path, folder: Path) -> None:
    make(root, folder)
    before = contents(folder)
    (folder / "sticky_secret").unlink()
    make(root, folder)
    after = contents(folder)
    assert {name for name in after if after[name] != before[name]} == {"sticky_secret"}


def test_the_exporter_is_not_left_with_an_old_password(root: Path, folder: Path) -> None:
    make(root, folder)
    (folder / "redis_password").unlink()
    done = make(root, folder)
    assert done.returncode != 0
    assert EXPORTER in done.stderr
    assert not (folder / "redis_password").exists()


def test_no_secret_is_printed(root: Path, folder: Path) -> None:
    done = make(root, folder)
    assert not [secret for secret in contents(folder).values() if secret in done.stdout + done.stderr]


def test_git_ignores_them(root: Path) -> None:
    ignored = (root / ".gitignore").read_text().splitlines()
    assert {"/secrets/", "/.env"} <= set(ignored)


@pytest.mark.parametrize("name", ["secrets", ".env", "keys.json", "bundles"])
def test_they_cannot_come_into_an_image(root: Path, name: str) -> None:
    ignored = False
    for rule in (root / ".dockerignore").read_text().splitlines():  # the last that matches holds
        if fnmatch(name, rule.removeprefix("!")):
            ignored = not rule.startswith("!")
    assert ignored
