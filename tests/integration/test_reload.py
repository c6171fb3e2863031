"""A new bundle without a break, over a real socket."""

import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from models.bundle import Manifest, read_manifest
from models.bundle.writer import write_manifest
from service.keys import KeysFile

if TYPE_CHECKING:
    from tests.integration.conftest import AssertProblem, FakeEngine, Launch, Serve, Service

Png = Callable[[int], bytes]
PURIGATE = str(Path(sys.executable).with_name("purigate"))


@pytest.fixture
def admin(tmp_path: Path) -> dict[str, str]:
    keys, secret = KeysFile().issue("root", admin=True)
    keys.write(tmp_path / "keys.json")
    return {"X-API-Key": secret}


@pytest.fixture
def service(
    serve: "Serve",
    engine: "FakeEngine",
    tmp_path: Path,
    admin: dict[str, str],  # noqa: ARG001 - its file
    manifest: Manifest,
) -> "Service":
    service = serve(engine, keys_file=tmp_path / "keys.json")
    service.next_engine = type(engine)(manifest.model_copy(update={"version": "2"}))
    return service


def test_a_reload_answers_with_the_bundle_that_serves_from_then_on(
    service: "Service", admin: dict[str, str], png: Png
) -> None:
    answer = service.client.post("/admin/reload", headers=admin)
    assert (answer.status_code, answer.json()["bundle"]) == (200, {"name": "toy", "version": "2"})
    assert service.post(png(1), headers=admin).json()["bundle"]["version"] == "2"
    assert service.value("bundle_info", version="2") == 1
    assert service.value("reloads_total", what="keys", outcome="done") == 1, "the keys are read although none changed"


def test_a_bad_bundle_is_422_and_says_why(
    service: "Service", admin: dict[str, str], png: Png, assert_problem: "AssertProblem"
) -> None:
    service.next_engine.manifest = service.engine.manifest

    def fail() -> None:
        raise FloatingPointError("the networks give no finite scores in the warm-up")

    service.next_engine.warm_up = fail  # type: ignore[method-assign]
    answer = service.client.post("/admin/reload", headers=admin)
    assert_problem(answer, 422, "bundle-refused")
    assert "no finite scores" in answer.json()["detail"]
    assert service.post(png(1), headers=admin).json()["bundle"]["version"] == "1"


def test_another_key_may_not_reload(
    service: "Service",
    tmp_path: Path,
    assert_problem: "AssertProblem",
    eventually: Callable[[Callable[[], bool]], None],
) -> None:
    keys, secret = KeysFile.read(tmp_path / "keys.json").issue("alice")
    keys.write(tmp_path / "keys.json")

    def ask() -> httpx.Response:
        return service.client.post("/admin/reload", headers={"X-API-Key": secret})

    eventually(lambda: ask().status_code != 401)
    assert_problem(ask(), 403, "forbidden")


def test_without_a_key_nobody_may(service: "Service", assert_problem: "AssertProblem") -> None:
    assert_problem(service.client.post("/admin/reload"), 401, "unauthenticated")


def test_where_no_keys_are_configured_nobody_may(
    serve: "Serve", engine: "FakeEngine", assert_problem: "AssertProblem"
) -> None:
    assert_problem(serve(engine).client.post("/admin/reload"), 403, "forbidden")


def test_sighup_reloads_a_real_bundle_and_a_damaged_one_leaves_it(
    launch: "Launch", bundle_folder: Path, tmp_path: Path, png: Png
) -> None:
    bundle = Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))
    process = launch(PURIGATE, "serve", "--port", "0", "--device", "cpu", "--bundle", bundle)
    port = process.wait_for_port()
    process.wait_for_answer(port)

    def version() -> str:
        headers = {"Content-Type": "image/png"}
        answer = httpx.post(f"http://127.0.0.1:{port}/classify", content=png(1), headers=headers, timeout=60)
        return str(answer.json()["bundle"]["version"])

    write_manifest(bundle, read_manifest(bundle).model_copy(update={"version": "2"}))
    process.stop(signal.SIGHUP)
    process.wait_for_line("bundle_reloaded")
    assert version() == "2"
    (bundle / "pgd-rcan.safetensors").write_bytes(b"damaged")
    process.stop(signal.SIGHUP)
    assert "pgd-rcan.safetensors" in process.wait_for_line("reload_refused")
    assert version() == "2"


def test_sighup_before_the_port_is_open_reloads_once_it_can(
    launch: "Launch", bundle_folder: Path, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    process = launch(PURIGATE, "serve", "--port", "0", "--device", "cpu", "--bundle", bundle_folder)
    eventually(lambda: process.ignores(signal.SIGHUP))
    process.stop(signal.SIGHUP)
    process.wait_for_line("bundle_read")
    process.stop(signal.SIGHUP)
    process.wait_for_line("bundle_reloaded")
    assert not any("reload_refused" in line for line in process.stdout)
