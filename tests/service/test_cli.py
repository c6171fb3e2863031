"""The `purigate` command, as far as it needs no server; tests/integration serves."""

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from models.bundle import read_bundle, read_manifest
from models.bundle.writer import write_manifest, write_weights
from service.cli import app
from service.keys import KeysFile
from service.settings import Settings


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("PURIGATE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def bundle(bundle_folder: Path, tmp_path: Path) -> Path:
    """A bundle that may be damaged."""
    return Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))


def purigate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def assert_refused(result: Result, *reasons: str) -> None:
    """It failed as its user may see it: status 1, and one line that says why."""
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert [reason for reason in reasons if reason not in result.stderr] == []


def test_a_new_key_is_printed_and_known_from_then_on(tmp_path: Path) -> None:
    result = purigate("keys", "new", "--id", "alice", "--keys-file", tmp_path / "keys.json")
    assert KeysFile.read(tmp_path / "keys.json").identify(result.stdout.strip()).id == "alice"


def test_a_second_key_leaves_the_first_as_it_is(tmp_path: Path) -> None:
    secrets = [
        purigate("keys", "new", "--id", name, "--keys-file", tmp_path / "keys.json").stdout.strip()
        for name in ("alice", "bob")
    ]
    known = KeysFile.read(tmp_path / "keys.json")
    assert [known.identify(secret).id for secret in secrets] == ["alice", "bob"]


def test_a_new_key_gets_its_policies(tmp_path: Path) -> None:
    flags = ("--output", "label", "--quota", "600/minute; 50000/day", "--admin")
    result = purigate("keys", "new", "--id", "alice", *flags, "--keys-file", tmp_path / "keys.json")
    key = KeysFile.read(tmp_path / "keys.json").identify(result.stdout.strip())
    assert (key.output, key.quota, key.admin) == ("label", "600/minute; 50000/day", True)


def test_a_quota_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    assert_refused(purigate("keys", "new", "--id", "a", "--quota", "lots", "--keys-file", path), "lots", "600/minute")
    assert not path.exists()


def test_keys_are_listed_by_name_with_their_policies_and_without_their_hashes(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    purigate("keys", "new", "--id", "alice", "--output", "rounded", "--quota", "7/hour", "--keys-file", path)
    result = purigate("keys", "list", "--keys-file", path)
    assert [word for word in ("alice", "rounded", "7/hour") if word not in result.stdout] == []
    assert KeysFile.read(path).keys[0].sha256 not in result.stdout


def test_a_revoked_key_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    purigate("keys", "new", "--id", "alice", "--keys-file", path)
    assert purigate("keys", "revoke", "--id", "alice", "--keys-file", path).exit_code == 0
    assert KeysFile.read(path).keys == ()


@pytest.mark.parametrize("command", [("list",), ("revoke", "--id", "alice")], ids=["list", "revoke"])
def test_without_a_keys_file_there_is_nothing_to_list_or_revoke(command: tuple[str, ...], tmp_path: Path) -> None:
    assert_refused(purigate("keys", *command, "--keys-file", tmp_path / "keys.json"), "keys.json")


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    new = ("keys", "new", "--id", "alice", "--keys-file", tmp_path / "keys.json")
    purigate(*new)
    assert_refused(purigate(*new), "alice")


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text("my diary")
    assert purigate("keys", "new", "--id", "alice", "--keys-file", path).exit_code == 1
    assert path.read_text() == "my diary"


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert_refused(purigate("keys", "new", "--id", "alice", "--keys-file", tmp_path / "no" / "keys.json"))


def test_a_bundle_is_shown(bundle_folder: Path) -> None:
    result = purigate("bundle", "show", bundle_folder)
    assert result.exit_code == 0
    for said in ("toy", "fgsm-edsr", "pgd-rcan", "grid 2", "halo 2", "32 x 32"):
        assert said in result.stdout


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_folder_without_a_bundle_is_refused(command: str, tmp_path: Path) -> None:
    assert_refused(purigate("bundle", command, tmp_path), "bundle.json")


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_manifest_with_a_typo_is_refused_by_the_name_of_what_is_wrong(command: str, bundle: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["pool"]["girth"] = manifest["pool"].pop("grid")
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    assert_refused(purigate("bundle", command, bundle), "bundle.json", "pool.girth")


def test_a_whole_bundle_is_verified(bundle_folder: Path) -> None:
    result = purigate("bundle", "verify", bundle_folder)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "toy 1 is whole" in result.stdout


def test_one_flipped_bit_is_found(bundle: Path) -> None:
    weights = bundle / "pgd-edsr.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert_refused(purigate("bundle", "verify", bundle), "pgd-edsr.safetensors", "SHA-256")


def test_a_missing_file_is_found(bundle: Path) -> None:
    (bundle / "classifier.safetensors").unlink()
    assert_refused(purigate("bundle", "verify", bundle), "classifier.safetensors")


def test_a_purifier_that_gives_no_numbers_is_found(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    first, *others = manifest.pool.purifiers
    purifier = read_bundle(bundle).purifiers[first.name]
    for parameter in purifier.parameters():
        parameter.fill_(float("nan"))
    broken = first.model_copy(update={"weights": write_weights(bundle, first.name, purifier)})
    pool = manifest.pool.model_copy(update={"purifiers": (broken, *others)})
    write_manifest(bundle, manifest.model_copy(update={"pool": pool}))
    assert_refused(purigate("bundle", "verify", bundle))


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--port", "99999"], "port"),
        (["--defense", "magic"], "defense"),
        (["--queue-capacity", "1"], "queue_capacity"),
    ],
)
def test_a_flag_with_a_bad_value_is_refused(flags: list[str], reason: str) -> None:
    assert_refused(purigate("serve", *flags), reason)


def test_a_variable_with_a_bad_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PURIGATE_MAX_BATCH", "lots")
    assert_refused(purigate("serve"), "max_batch")


def test_a_flag_that_does_not_exist_is_refused_by_its_name() -> None:
    result = purigate("serve", "--max-bach", "3")
    assert result.exit_code != 0
    assert "--max-bach" in result.stderr


def test_the_help_lists_every_setting() -> None:
    result = purigate("serve", "--help")
    assert result.exit_code == 0
    assert [name for name in Settings.model_fields if f"--{name.replace('_', '-')}" not in result.stdout] == []


def test_a_bundle_is_verified_with_its_purifiers_whatever_the_environment_says(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PURIGATE_DEFENSE", "none")
    monkeypatch.setenv("PURIGATE_PORT", "no number")
    assert purigate("bundle", "verify", bundle).exit_code == 0
