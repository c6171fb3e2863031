"""An attack on a running gateway asks exactly as many queries as the gateway counts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import SecretStr
from torch import Tensor
from typer.testing import CliRunner, Result

from evaluation.cli import app
from evaluation.errors import EvaluationError
from evaluation.http_target import HTTPTarget
from evaluation.records import read_records
from service.keys import KeysFile
from service.loading import load_engine
from service.metrics import Metrics
from service.schemas import Output
from service.settings import Settings

if TYPE_CHECKING:
    from tests.integration.conftest import FakeEngine, Serve, Service

JUDGED = 9 + 20 + 20
"""Queries about each image outside of the attack: checks, draws, and draws of the clean image."""
JUDGED_ONCE = 1 + 1
"""The same where each answer stands for all."""
PROBE = 1
"""Queries by which a target learns what its key is told."""
GRAY = 128
SCORE_ATTACKS = ("nes", "simba", "square")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for label in ("bird", "cat", "deer"):
        (root / label).mkdir()
        pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / label / "0.png")
    return root


Attack = Callable[..., Result]


@pytest.fixture
def attack(tree: Path, tmp_path: Path) -> Iterator[Attack]:
    """Runs the command against a gateway."""

    def run(service: "Service", *arguments: object) -> Result:
        url = f"http://127.0.0.1:{service.port}"
        options = ["--url", url, "--data", tree, "--records", tmp_path / "records", *arguments]
        return CliRunner().invoke(app, ["robustness", *map(str, options)])

    yield run
    torch.set_flush_denormal(False)


class Guarded(Protocol):
    """Starts a gateway that has one key; gives it, and the key."""

    def __call__(
        self, output: Output = "scores", quota: str | None = None, **settings: Any
    ) -> tuple["Service", str]: ...


@pytest.fixture
def guarded(serve: "Serve", engine: "FakeEngine", tmp_path: Path) -> Guarded:
    def start(output: Output = "scores", quota: str | None = None, **settings: Any) -> tuple["Service", str]:
        keys, secret = KeysFile().issue("attacker", output=output, quota=quota)
        keys.write(tmp_path / "keys.json")
        return serve(engine, keys_file=tmp_path / "keys.json", **settings), secret

    return start


def reds(*values: int) -> Tensor:
    """An image of each red."""
    return (torch.tensor(values) / 255).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)


@pytest.mark.parametrize("kind", ["square", "boundary"])
def test_scores_and_labels_are_asked_for_and_counted_as_the_gateway_counts(
    real_service: "Service", attack: Attack, tmp_path: Path, kind: str
) -> None:
    before = real_service.value("queries_total", outcome="answered") or 0

    result = attack(real_service, "--attack", kind, "--queries", 30)

    assert result.exit_code == 0, result.output
    (record,) = read_records([tmp_path / "records"])
    spent = sum(outcome.spent for outcome in record.outcomes)
    assert 3 <= spent <= 3 * 30
    assert real_service.value("queries_total", outcome="answered") == before + PROBE + spent + 3 * JUDGED
    assert record.cell.served.over_http
    assert record.cell.served.bundle == "toy 1"
    assert "warning" not in result.stderr


def test_a_defense_without_draws_is_asked_nothing_twice(
    serve: "Serve", engine: "FakeEngine", attack: Attack, tmp_path: Path
) -> None:
    service = serve(engine, defense="disco")

    result = attack(service, "--queries", 30)

    assert result.exit_code == 0, result.output
    (record,) = read_records([tmp_path / "records"])
    spent = sum(outcome.spent for outcome in record.outcomes)
    assert service.value("queries_total", outcome="answered") == PROBE + spent + 3 * JUDGED_ONCE


def test_the_gateway_sees_the_8_bit_image(serve: "Serve", engine: "FakeEngine") -> None:
    service = serve(engine)
    images = torch.tensor([0.0, 100.4 / 255, 100.6 / 255, 1.0]).view(4, 1, 1, 1).expand(4, 3, 32, 32)

    with HTTPTarget(f"http://127.0.0.1:{service.port}") as target:
        scores = target.scores(images)
        labels = target.labels(images[[0, 3]])

    assert engine.seen() == [GRAY, 0, 100, 101, 255, 0, 255]
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
    with pytest.raises(EvaluationError, match="401"):
        HTTPTarget(url, "wrong")


def test_where_no_gateway_answers_it_is_told(png: Callable[[int], bytes]) -> None:  # noqa: ARG001
    with pytest.raises(EvaluationError, match="no gateway answers"):
        HTTPTarget("http://127.0.0.1:9")


def test_a_batch_that_the_quota_never_allows_is_divided(guarded: Guarded, engine: "FakeEngine") -> None:
    service, secret = guarded(quota="10/second")
    colors = range(0, 250, 10)

    with HTTPTarget(f"http://127.0.0.1:{service.port}", secret) as target:
        labels = target.labels(reds(*colors))

    assert labels.tolist() == [int(red < 127) for red in colors]
    assert engine.seen() == [GRAY, *colors]
    assert target.unanswered == 0
    assert service.value("key_queries_total", key="attacker", outcome="granted") == PROBE + len(colors)


def test_what_the_quota_leaves_is_asked_about_at_once(guarded: Guarded, engine: "FakeEngine") -> None:
    service, secret = guarded(quota="20/day")

    def must_not_wait(seconds: float) -> None:
        raise AssertionError(f"{seconds} seconds")

    with (
        HTTPTarget(f"http://127.0.0.1:{service.port}", secret, must_not_wait) as target,
        pytest.raises(AssertionError, match="seconds"),
    ):
        target.labels(reds(*range(21)))

    assert engine.seen() == [GRAY, *range(19)]


def test_an_attack_goes_on_under_a_small_quota(guarded: Guarded, attack: Attack, tmp_path: Path) -> None:
    service, secret = guarded(quota="20/second", defense="none")

    result = attack(service, "--key", secret, "--queries", 10)

    assert result.exit_code == 0, result.output
    (record,) = read_records([tmp_path / "records"])
    spent = sum(outcome.spent for outcome in record.outcomes)
    assert service.value("key_queries_total", key="attacker", outcome="granted") == PROBE + spent + 3 * JUDGED_ONCE


@pytest.mark.parametrize(
    ("output", "most", "policy", "scores"),
    [
        ("scores", 1, "scores", [100 / 255, 155 / 255, 0, 0]),
        ("top_k", 4, "scores", [100 / 255, 155 / 255, 0, 0]),
        ("top_k", 1, "top 1", [100 / 765, 155 / 255, 100 / 765, 100 / 765]),
        ("rounded", 5, "rounded", [0.39, 0.61, 0, 0]),
        ("rounded", 1, "rounded top 1", [0.13, 0.61, 0.13, 0.13]),
    ],
)
def test_scores_are_what_the_policy_of_the_key_tells(
    guarded: Guarded, output: Output, most: int, policy: str, scores: list[float]
) -> None:
    service, secret = guarded(output, default_top_k=most)

    with HTTPTarget(f"http://127.0.0.1:{service.port}", secret) as target:
        told = target.scores(reds(100, 255))

    assert str(target.policy) == policy
    torch.testing.assert_close(told[0], torch.tensor(scores))
    torch.testing.assert_close(told[1], torch.tensor([1.0, 0, 0, 0]))


@pytest.mark.parametrize("most", [1, 5])
def test_rounding_does_not_change_which_class_is_the_best(guarded: Guarded, most: int) -> None:
    service, secret = guarded("rounded", default_top_k=most)

    with HTTPTarget(f"http://127.0.0.1:{service.port}", secret) as target:
        scores = target.scores(reds(127, 128))

    assert scores.argmax(1).tolist() == [1, 0]


@pytest.mark.parametrize("kind", SCORE_ATTACKS)
def test_an_attack_on_scores_is_refused_to_a_key_that_is_told_labels(
    guarded: Guarded, attack: Attack, tmp_path: Path, kind: str
) -> None:
    service, secret = guarded("label")

    result = attack(service, "--key", secret, "--attack", kind)

    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "labels alone; choose an attack on labels" in result.stderr
    assert service.value("queries_total", outcome="answered") == PROBE
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize(
    ("output", "kind", "bundle"),
    [
        ("top_k", "square", "toy 1, top 2"),
        ("rounded", "square", "toy 1, rounded top 2"),
        ("label", "boundary", "toy 1, label"),
    ],
)
def test_the_record_of_an_attack_tells_what_the_key_is_told(
    guarded: Guarded, attack: Attack, tmp_path: Path, output: Output, kind: str, bundle: str
) -> None:
    service, secret = guarded(output, default_top_k=2)

    result = attack(service, "--key", secret, "--attack", kind, "--queries", 10)

    assert result.exit_code == 0, result.output
    (record,) = read_records([tmp_path / "records"])
    assert record.cell.served.bundle == bundle


def test_records_of_another_setup_are_not_taken_for_those_of_this_one(
    serve: "Serve", engine: "FakeEngine", attack: Attack, tmp_path: Path
) -> None:
    service = serve(engine, defense="none")
    for setup in ([], ["--setup", "shadow"], ["--setup", "shadow"]):
        result = attack(service, "--queries", 3, *setup)
        assert result.exit_code == 0, result.output

    records = read_records([tmp_path / "records"])
    assert sorted(record.cell.served.bundle for record in records) == ["toy 1", "toy 1, setup shadow"]
    spent = sum(outcome.spent for record in records for outcome in record.outcomes)
    assert service.value("queries_total", outcome="answered") == 3 * PROBE + spent + 2 * 3 * JUDGED_ONCE


def test_a_gateway_that_is_said_to_be_sticky_is_asked_nothing_twice(
    serve: "Serve", bundle_folder: Path, attack: Attack, tmp_path: Path
) -> None:
    settings = Settings(bundle=bundle_folder, device="cpu", randomness="sticky", sticky_secret=SecretStr("x" * 32))
    service = serve(load_engine(settings, Metrics()), **settings.model_dump(exclude_unset=True))

    result = attack(service, "--sticky", "--attack", "null", "--queries", 30)

    assert result.exit_code == 0, result.output
    (record,) = read_records([tmp_path / "records"])
    assert record.cell.served.sticky
    assert not record.cell.served.random
    assert {outcome.checks_wrong for outcome in record.outcomes} <= {0, 9}
    spent = sum(outcome.spent for outcome in record.outcomes)
    assert service.value("queries_total", outcome="answered") == PROBE + spent + 3 * JUDGED_ONCE


def test_queries_that_a_device_fault_lost_are_asked_again(guarded: Guarded, engine: "FakeEngine") -> None:
    service, secret = guarded()

    def recover(_: float) -> None:
        engine.fault = None
        service.wait_for_state("ready")

    with HTTPTarget(f"http://127.0.0.1:{service.port}", secret, recover) as target:
        engine.fault = RuntimeError("CUDA error")
        labels = target.labels(reds(0, 255))

    assert labels.tolist() == [1, 0]
    assert target.unanswered == 2
    assert service.value("key_queries_total", key="attacker", outcome="granted") == PROBE + 2 + 2


def test_queries_that_passed_their_deadline_are_asked_again(guarded: Guarded, engine: "FakeEngine") -> None:
    service, secret = guarded(request_deadline_ms=2000)

    with HTTPTarget(f"http://127.0.0.1:{service.port}", secret, lambda _: engine.free.set()) as target:
        engine.free.clear()
        labels = target.labels(reds(0, 255))

    assert labels.tolist() == [1, 0]
    assert target.unanswered == 2
    assert service.value("key_queries_total", key="attacker", outcome="granted") == PROBE + 2 + 2
