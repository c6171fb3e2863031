"""An attack on a running gateway asks exactly as many queries as the gateway counts."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from evaluation.cli import app
from evaluation.errors import EvaluationError
from evaluation.http_target import HTTPTarget
from evaluation.records import read_records
from service.keys import KeysFile

if TYPE_CHECKING:
    from tests.integration.conftest import FakeEngine, Serve, Service

JUDGED = 9 + 20 + 20
"""Queries about each image outside of the attack: checks, draws, and draws of the clean image."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for label in ("bird", "cat", "deer"):
        (root / label).mkdir()
        pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / label / "0.png")
    return root


@pytest.mark.parametrize("attack", ["square", "boundary"])
def test_scores_and_labels_are_asked_for_and_counted_as_the_gateway_counts(
    real_service: "Service", tree: Path, tmp_path: Path, attack: str
) -> None:
    url = f"http://127.0.0.1:{real_service.port}"
    before = real_service.value("queries_total", outcome="answered") or 0

    options = ["--url", url, "--data", tree, "--attack", attack, "--queries", 30, "--records", tmp_path]
    result = CliRunner().invoke(app, ["robustness", *map(str, options)])

    torch.set_flush_denormal(False)
    assert result.exit_code == 0, result.output
    (record,) = read_records([tmp_path])
    spent = sum(outcome.spent for outcome in record.outcomes)
    assert 3 <= spent <= 3 * 30
    assert real_service.value("queries_total", outcome="answered") == before + spent + 3 * JUDGED
    assert record.cell.served.over_http
    assert record.cell.served.bundle == "toy 1"


def test_the_gateway_sees_the_8_bit_image(serve: "Serve", engine: "FakeEngine") -> None:
    service = serve(engine)
    images = torch.tensor([0.0, 100.4 / 255, 100.6 / 255, 1.0]).view(4, 1, 1, 1).expand(4, 3, 32, 32)

    with HTTPTarget(f"http://127.0.0.1:{service.port}") as target:
        scores = target.scores(images)
        labels = target.labels(images[[0, 3]])

    assert engine.seen() == [0, 100, 101, 255, 0, 255]
    torch.testing.assert_close(scores[:, 0], torch.tensor([0, 100, 101, 255]) / 255)
    assert labels.tolist() == [1, 0]


def test_more_images_than_a_request_may_have_go_in_several(serve: "Serve", engine: "FakeEngine") -> None:
    service = serve(engine, max_images_per_request=3)

    with HTTPTarget(f"http://127.0.0.1:{service.port}") as target:
        scores = target.scores(torch.linspace(0, 1, 7).view(7, 1, 1, 1).expand(7, 3, 32, 32))

    assert scores.shape == (7, 4)
    assert scores[:, 0].diff().min() > 0


def test_a_key_is_sent_and_a_wrong_one_is_told(serve: "Serve", engine: "FakeEngine", tmp_path: Path) -> None:
    keys, secret = KeysFile().issue("attacker")
    keys.write(tmp_path / "keys.json")
    service = serve(engine, keys_file=tmp_path / "keys.json")
    url = f"http://127.0.0.1:{service.port}"

    with HTTPTarget(url, secret) as target:
        assert target.labels(torch.zeros(1, 3, 32, 32)).tolist() == [1]
    with HTTPTarget(url, "wrong") as target, pytest.raises(EvaluationError, match="401"):
        target.labels(torch.zeros(1, 3, 32, 32))


def test_where_no_gateway_answers_it_is_told(png: Callable[[int], bytes]) -> None:  # noqa: ARG001
    with pytest.raises(EvaluationError, match="no gateway answers"):
        HTTPTarget("http://127.0.0.1:9")
