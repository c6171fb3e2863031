"""What the audit log holds after queries over a real socket."""

import hashlib
import json
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.engine import TorchEngine
from service.keys import KeysFile
from service.loading import load_engine
from service.metrics import Metrics
from service.settings import Settings

if TYPE_CHECKING:
    from tests.integration.conftest import FakeEngine, Serve

Png = Callable[[int], bytes]
Eventually = Callable[[Callable[[], bool]], None]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_answered_query_is_one_line(
    serve: "Serve", engine: "FakeEngine", tmp_path: Path, png: Png, eventually: Eventually
) -> None:
    keys, secret = KeysFile().issue("alice")
    keys.write(tmp_path / "keys.json")
    path = tmp_path / "audit.jsonl"
    service = serve(engine, keys_file=tmp_path / "keys.json", audit_file=path)
    headers = {"X-API-Key": secret, "X-Request-ID": "mine"}
    service.post(png(51), headers=headers)
    service.client.post("/classify/batch", files=[("file", ("f", png(red))) for red in (0, 255)], headers=headers)
    service.post(b"hello", headers=headers)
    eventually(lambda: len(lines(path)) == 3)
    written = lines(path)
    assert datetime.fromisoformat(written[0].pop("time")).tzinfo
    assert written[0] == {
        "image_sha256": hashlib.sha256(bytes([51, 0, 0]) * 32 * 32).hexdigest(),
        "request_id": "mine",
        "key": "alice",
        "label": "bird",
        "defense": "puridefense",
        "shadow": False,
        "bundle": "1",
        "draw": "",
    }
    assert [line["label"] for line in written] == ["bird", "bird", "airplane"]
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_line_tells_what_was_drawn(
    serve: "Serve", bundle_folder: Path, tmp_path: Path, png: Png, eventually: Eventually
) -> None:
    settings = Settings(bundle=bundle_folder, device="cpu", precision="float32")
    real: TorchEngine = load_engine(settings, Metrics())
    service = serve(real, audit_file=tmp_path / "audit.jsonl")
    service.post(png(1))
    eventually(lambda: len(lines(tmp_path / "audit.jsonl")) == 1)
    (line,) = lines(tmp_path / "audit.jsonl")
    assert [0 <= int(number) < 4 for number in line["draw"].split(".")] == [True] * 4


def test_the_file_is_rotated_and_old_ones_are_dropped(
    serve: "Serve", engine: "FakeEngine", tmp_path: Path, png: Png, eventually: Eventually
) -> None:
    path = tmp_path / "audit.jsonl"
    service = serve(engine, audit_file=path, audit_max_bytes=600, audit_backups=2)
    for red in range(12):
        service.post(png(red))
    last = hashlib.sha256(bytes([11, 0, 0]) * 32 * 32).hexdigest()
    eventually(lambda: path.exists() and last in path.read_text())
    assert sorted(one.name for one in tmp_path.iterdir()) == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert {stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()} == {0o600}


def test_lines_that_cannot_be_written_are_counted_and_harm_no_query(
    serve: "Serve", engine: "FakeEngine", png: Png
) -> None:
    service = serve(engine, audit_file="/dev/full")
    assert [service.post(png(red)).status_code for red in range(3)] == [200] * 3
    service.wait_for_value(3, "audit_lines_lost_total")


def test_by_default_nothing_is_written(serve: "Serve", engine: "FakeEngine", tmp_path: Path, png: Png) -> None:
    serve(engine).post(png(1))
    assert list(tmp_path.iterdir()) == []
