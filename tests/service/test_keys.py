"""API keys and their file."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import UnauthenticatedError
from service.keys import Key, KeysFile, KeysFileError, parse_quota


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_that_was_issued_is_known_by_its_name() -> None:
    keys, secret = KeysFile().issue("alice")
    assert keys.identify(secret).id == "alice"


def test_each_of_several_keys_is_told_from_the_others() -> None:
    keys, first = KeysFile().issue("alice")
    keys, second = keys.issue("bob")
    assert [keys.identify(first).id, keys.identify(second).id] == ["alice", "bob"]


def test_two_keys_are_never_the_same() -> None:
    assert KeysFile().issue("alice")[1] != KeysFile().issue("alice")[1]


def test_a_key_carries_256_random_bits() -> None:
    _, secret = KeysFile().issue("alice")
    assert len(secret.removeprefix("pg_")) >= 256 / 6


def test_keys_survive_the_way_through_their_file(path: Path) -> None:
    keys, secret = KeysFile().issue("alice")
    keys.write(path)
    assert KeysFile.read(path).identify(secret).id == "alice"


def test_the_file_does_not_hold_the_key(path: Path) -> None:
    keys, secret = KeysFile().issue("alice")
    keys.write(path)
    assert secret.removeprefix("pg_") not in path.read_text()


def test_only_its_owner_may_read_the_file(path: Path) -> None:
    KeysFile().write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_only_its_owner_may_read_a_file_that_others_could_read_before(path: Path) -> None:
    path.write_text("{}")
    path.chmod(0o644)
    KeysFile().write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_writing_leaves_nothing_else_in_the_folder(path: Path) -> None:
    KeysFile().write(path)
    assert list(path.parent.iterdir()) == [path]


def test_a_name_is_given_only_once() -> None:
    keys, _ = KeysFile().issue("alice")
    with pytest.raises(KeysFileError, match="alice"):
        keys.issue("alice")


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "../a", "a\n", "ä", "x" * 101])
def test_a_name_has_to_be_plain(name: str) -> None:
    with pytest.raises(KeysFileError):
        KeysFile().issue(name)


@given(secret=st.text(max_size=200))
def test_no_other_text_is_a_key(secret: str) -> None:
    keys, _ = KeysFile().issue("alice")
    with pytest.raises(UnauthenticatedError):
        keys.identify(secret)


def test_the_hash_of_a_key_is_not_the_key() -> None:
    keys, _ = KeysFile().issue("alice")
    with pytest.raises(UnauthenticatedError):
        keys.identify(keys.keys[0].sha256)


def test_a_missing_file_is_an_error_that_names_it(path: Path) -> None:
    with pytest.raises(KeysFileError, match=r"keys\.json: No such file"):
        KeysFile.read(path)


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "{", '{"keys": [{"id": "a", "sha256": "short"}]}', '{"keys": [], "kez": 1}', "\0"]
)
def test_a_malformed_file_is_an_error_that_names_it(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(KeysFileError, match=r"keys\.json: not a keys file"):
        KeysFile.read(path)


def test_the_error_about_a_malformed_file_is_one_line_and_repeats_no_key(path: Path) -> None:
    path.write_text('{"keys": [{"id": "alice", "sha256": "pg_a-key-that-was-pasted-in-plain"}]}')
    with pytest.raises(KeysFileError) as failure:
        KeysFile.read(path)
    assert "pasted" not in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_revoked_key_is_unknown_and_the_others_are_not() -> None:
    keys, first = KeysFile().issue("alice")
    keys, second = keys.issue("bob")
    kept = keys.revoke("alice")
    with pytest.raises(UnauthenticatedError):
        kept.identify(first)
    assert kept.identify(second).id == "bob"


def test_a_key_that_does_not_exist_cannot_be_revoked() -> None:
    with pytest.raises(KeysFileError, match="alice"):
        KeysFile().revoke("alice")


def test_the_policies_of_a_key_survive_the_way_through_its_file(path: Path) -> None:
    keys, secret = KeysFile().issue("alice", output="label", quota="600/minute; 50000/day", admin=True)
    keys.write(path)
    key = KeysFile.read(path).identify(secret)
    assert (key.output, key.quota, key.admin) == ("label", "600/minute; 50000/day", True)


def test_a_file_from_before_there_were_policies_is_read(path: Path) -> None:
    path.write_text('{"keys": [{"id": "alice", "sha256": "' + "0" * 64 + '"}]}')
    (key,) = KeysFile.read(path).keys
    assert (key.output, key.quota, key.admin, key.limits) == ("scores", None, False, ())


def test_the_windows_of_a_quota_come_shortest_first() -> None:
    key = Key(id="alice", sha256="0" * 64, quota="50000/day; 600 per 1 minute")
    assert [(window.amount, window.get_expiry()) for window in key.limits] == [(600, 60), (50_000, 86_400)]


@pytest.mark.parametrize(
    "quota",
    [
        "",
        "600",
        "many/minute",
        "600/fortnight",
        "-1/minute",
        "0/minute",
        "1/minute; 2/minute",
        "60/minute; 1/60 second",
        "1.5/day",
    ],
)
def test_what_is_no_quota_is_refused(quota: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is for the log
        parse_quota(quota)
    with pytest.raises(KeysFileError, match="quota"):
        KeysFile().issue("alice", quota=quota)
