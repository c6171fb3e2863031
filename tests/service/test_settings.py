"""Settings: from flags, else the environment, else defaults."""

import os
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from service.settings import HostSettings, Settings, embedded_bundle


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("PURIGATE_"):
            monkeypatch.delenv(name)


def from_flags(*flags: str) -> Settings:
    return Settings(_cli_parse_args=list(flags))


def test_by_default_only_this_machine_is_served() -> None:
    assert Settings().host == "127.0.0.1"


def test_by_default_the_embedded_bundle_is_served_with_its_defense() -> None:
    settings = Settings()
    assert (settings.bundle, settings.defense) == (embedded_bundle(), "puridefense")


def test_the_environment_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PURIGATE_REQUEST_DEADLINE_MS", "123")
    assert Settings().request_deadline_ms == 123


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("PURIGATE_BUNDLE", "/somewhere", "bundle", Path("/somewhere")),
        ("PURIGATE_DEFENSE", "none", "defense", "none"),
        ("PURIGATE_DEVICE", "cuda:1", "device", "cuda:1"),
        ("PURIGATE_KEYS_FILE", "/keys.json", "keys_file", Path("/keys.json")),
    ],
)
def test_the_names_that_stay_fixed_are_read(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str, expected: object
) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(Settings(), field) == expected


def test_a_flag_sets() -> None:
    assert from_flags("--max-batch", "7").max_batch == 7


def test_a_flag_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PURIGATE_MAX_BATCH", "5")
    assert from_flags("--max-batch=7").max_batch == 7


def test_a_setting_without_its_flag_still_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PURIGATE_MAX_BATCH", "5")
    assert from_flags("--port", "9000").max_batch == 5


def test_a_switch_needs_no_value() -> None:
    assert from_flags("--insecure").insecure
    assert not from_flags("--no-insecure").insecure


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", 65_536),
        ("port", -1),
        ("max_batch", 0),
        ("queue_capacity", 0),
        ("request_deadline_ms", -5),
        ("max_body_bytes", "many"),
        ("device", "tpu"),
        ("device", "cuda:"),
        ("defense", "magic"),
        ("precision", "float8"),
        ("device_hour_price_dollars", -0.1),
    ],
)
def test_a_value_that_is_not_allowed_is_an_error_that_names_the_setting(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        Settings(**{field: value})  # type: ignore[arg-type]


def test_a_bad_value_in_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PURIGATE_MAX_BATCH", "none")
    with pytest.raises(ValidationError, match="max_batch"):
        Settings()


def test_a_setting_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValidationError, match="max_bach"):
        Settings(max_bach=3)  # type: ignore[call-arg]


def test_a_request_that_could_never_fit_the_queue_is_not_promised() -> None:
    with pytest.raises(ValidationError, match="queue_capacity"):
        Settings(queue_capacity=4, max_images_per_request=5)


def test_an_empty_variable_is_no_keys_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PURIGATE_KEYS_FILE", "")
    assert Settings().keys_file is None


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_metrics_cannot_have_the_port_of_all() -> None:
    with pytest.raises(ValidationError, match="metrics_port"):
        Settings(port=8000, metrics_port=8000)


def test_both_ports_may_be_free_ones() -> None:
    assert Settings(port=0, metrics_port=0).metrics_port == 0


def test_a_password_without_a_redis_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="redis_url is missing"):
        Settings(redis_password_file=tmp_path / "password")


def test_two_passwords_of_one_redis_are_an_error_that_does_not_tell_them(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="redis_password_file") as error:
        Settings(redis_url=SecretStr("redis://:hunter2@redis"), redis_password_file=tmp_path / "password")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--networks-socket", "a.sock"), "networks_socket is for networks that are shared"),
        (("--networks", "processes", "--networks-socket", "a.sock"), "networks_socket is for networks that are shared"),
        (("--networks", "shared"), "shared networks need networks_socket"),
        (("--networks", "shared", "--networks-socket", "a.sock", "--device", "cpu"), "of whoever holds them"),
        (("--networks", "shared", "--networks-socket", "a.sock", "--precision", "float32"), "of whoever holds them"),
        (("--networks", "shared", "--networks-socket", "a.sock", "--workers", "2"), "one batch of each gateway"),
    ],
)
def test_networks_that_are_elsewhere_are_said_so_once(flags: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        from_flags(*flags)


def test_who_holds_networks_reads_what_gateways_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BUNDLE": "/b", "DEFENSE": "none", "MAX_BATCH": "7", "NETWORKS_SOCKET": "/s"}.items():
        monkeypatch.setenv(f"PURIGATE_{name}", value)
    monkeypatch.setenv("PURIGATE_PORT", "1")
    settings = HostSettings(_cli_parse_args=[])
    gateway = from_flags("--networks", "shared")
    for name in ("bundle", "defense", "max_batch", "networks_socket", "drain_timeout_ms"):
        assert getattr(settings, name) == getattr(gateway, name)
