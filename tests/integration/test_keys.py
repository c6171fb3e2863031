"""Who may ask, over a real socket."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.keys import KeysFile
from service.schemas import Output

if TYPE_CHECKING:
    from tests.integration.conftest import AssertProblem, FakeEngine, Serve, Service

Png = Callable[[int], bytes]


@pytest.fixture
def secret(tmp_path: Path) -> str:
    keys, secret = KeysFile().issue("alice")
    keys.write(tmp_path / "keys.json")
    return secret


@pytest.fixture
def guarded(serve: "Serve", engine: "FakeEngine", tmp_path: Path, secret: str) -> "Service":  # noqa: ARG001 - the file
    return serve(engine, keys_file=tmp_path / "keys.json")


def test_without_a_key_it_is_401(guarded: "Service", png: Png, assert_problem: "AssertProblem") -> None:
    response = guarded.post(png(1))
    assert_problem(response, 401, "unauthenticated")
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "header",
    [
        {"Authorization": "Bearer pg_wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic YWxpY2U6"},
        {"X-API-Key": "pg_wrong"},
        {"X-API-Key": ""},
    ],
    ids=str,
)
def test_with_a_wrong_key_it_is_401(
    guarded: "Service", png: Png, assert_problem: "AssertProblem", header: dict[str, str]
) -> None:
    assert_problem(guarded.post(png(1), headers=header), 401, "unauthenticated")


def test_a_key_is_never_repeated_to_whoever_sent_it(guarded: "Service", png: Png) -> None:
    assert "pg_wrong" not in guarded.post(png(1), headers={"X-API-Key": "pg_wrong"}).text


@pytest.mark.parametrize("header", ["Authorization: Bearer {}", "Authorization: bearer  {}", "X-API-Key: {}"])
def test_with_the_right_key_it_is_200(guarded: "Service", png: Png, secret: str, header: str) -> None:
    name, value = header.format(secret).split(": ")
    assert guarded.post(png(1), headers={name: value}).status_code == 200


def test_the_batch_route_asks_for_a_key_too(guarded: "Service", png: Png, assert_problem: "AssertProblem") -> None:
    assert_problem(guarded.post_files(png(1)), 401, "unauthenticated")


def test_without_a_key_the_engine_sees_nothing(guarded: "Service", engine: "FakeEngine", png: Png) -> None:
    guarded.post(png(1))
    assert engine.seen() == []


def test_probes_need_no_key(guarded: "Service") -> None:
    assert [guarded.client.get(path).status_code for path in ("/livez", "/readyz")] == [200, 200]


def test_without_a_keys_file_nobody_is_asked(service: "Service", png: Png) -> None:
    assert service.post(png(1)).status_code == 200


@pytest.mark.parametrize(("output", "told"), [("scores", 3), ("top_k", 2), ("rounded", 2), ("label", None)])
def test_the_key_decides_what_of_the_scores_its_holder_is_told(
    serve: "Serve", engine: "FakeEngine", tmp_path: Path, png: Png, output: Output, told: int | None
) -> None:
    keys, secret = KeysFile().issue("alice", output=output)
    keys.write(tmp_path / "keys.json")
    service = serve(engine, keys_file=tmp_path / "keys.json", default_top_k=2)
    answer = service.post(png(51), headers={"X-API-Key": secret}, params={"top_k": 3}).json()
    assert answer["label"] == "bird"
    assert (len(answer["scores"]) if "scores" in answer else None) == told


def test_a_batch_is_told_no_more_than_a_single_image(
    serve: "Serve", engine: "FakeEngine", tmp_path: Path, png: Png
) -> None:
    keys, secret = KeysFile().issue("alice", output="label")
    keys.write(tmp_path / "keys.json")
    service = serve(engine, keys_file=tmp_path / "keys.json")
    files = [("file", ("image", png(red))) for red in (0, 255)]
    answer = service.client.post("/classify/batch", files=files, headers={"X-API-Key": secret}).json()
    assert answer["results"] == [{"label": "bird", "index": 1}, {"label": "airplane", "index": 0}]


def test_where_no_keys_are_configured_the_setting_decides(serve: "Serve", engine: "FakeEngine", png: Png) -> None:
    assert "scores" not in serve(engine, output="label").post(png(51)).json()


def test_keys_change_without_a_restart(
    guarded: "Service", tmp_path: Path, png: Png, secret: str, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    keys, bob = KeysFile.read(tmp_path / "keys.json").revoke("alice").issue("bob")
    keys.write(tmp_path / "keys.json")

    def status(key: str) -> int:
        return guarded.post(png(1), headers={"X-API-Key": key}).status_code

    eventually(lambda: status(bob) == 200)
    assert status(secret) == 401
