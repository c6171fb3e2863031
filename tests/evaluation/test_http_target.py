"""What an attack makes of faults that a real gateway cannot be told to have, and of scores that it is not told."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from evaluation.attacks import Square
from evaluation.cli import app
from evaluation.draws import WITHOUT_DRAWS
from evaluation.errors import EvaluationError
from evaluation.gateway import GatewayResult, GatewayScore, seconds_to_wait
from evaluation.http_target import HTTPTarget, Policy, row
from evaluation.jobs import Job
from evaluation.records import Cell
from evaluation.served import gateway_cell
from models.bundle import read_bundle
from models.defenses import DEFENSES, build_defense
from models.randomness import SeededBytes

RESET = "reset"
SILENCE = "silence"
NOT_JSON = "not JSON"
TOO_FEW = "too few"
Trouble = str | tuple[int, dict[str, str]]
INFORMATION = {
    "bundle": {"name": "toy", "version": "1"},
    "labels": ["bird", "cat"],
    "input": {"height": 2, "width": 2},
    "defense": "none",
    "purifiers": [],
    "precision": "float32",
    "max_images_per_request": 8,
}

RESULT = {"label": "bird", "index": 0, "scores": [{"index": 0, "score": 0.7}, {"index": 1, "score": 0.3}]}


class TroubledServer(ThreadingHTTPServer):
    """Answers as a gateway does, but for the troubles that it is told, one a request.

    Attributes:
        troubles: of the next requests about images.
        information: what `/info` says.
        sizes: images of each request so far.
        free: set, it ends its silence.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.troubles: list[Trouble] = []
        self.information = dict(INFORMATION)
        self.sizes: list[int] = []
        self.free = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: TroubledServer

    def do_GET(self) -> None:
        self.answer(200, json.dumps(self.server.information))

    def do_POST(self) -> None:
        images = self.rfile.read(int(self.headers["Content-Length"])).count(b'name="file"')
        self.server.sizes.append(images)
        trouble = self.server.troubles.pop(0) if self.server.troubles else None
        match trouble:
            case (status, headers):
                self.answer(status, "{}", headers)
            case "reset":
                linger = struct.pack("ii", 1, 0)  # closed so, the socket tells its peer that it is reset
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
            case "silence":
                self.server.free.wait()
                self.close_connection = True
            case "not JSON":
                self.answer(200, "<html>")
            case _:
                result = {
                    "label": "bird",
                    "index": 0,
                    "scores": [{"index": 0, "score": 0.7}, {"index": 1, "score": 0.3}],
                }
                self.answer(200, json.dumps({"results": [result] * (images - (trouble == TOO_FEW))}))

    def answer(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[TroubledServer]:
    with TroubledServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.free.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def slept() -> list[float]:
    """How long the target of this test waited, each time."""
    return []


@pytest.fixture
def target(server: TroubledServer, slept: list[float]) -> Iterator[HTTPTarget]:
    """A target that has learned its policy, and does not wait."""
    with HTTPTarget(server.url, sleep=slept.append) as target:
        server.sizes.clear()
        yield target


def images(count: int) -> torch.Tensor:
    return torch.zeros(count, 3, 2, 2)


@pytest.mark.parametrize("trouble", [(504, {}), (502, {}), RESET, SILENCE])
def test_what_got_no_answer_is_asked_again_and_counted(
    server: TroubledServer, target: HTTPTarget, slept: list[float], trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target._gateway._http, "timeout", 0.2 if trouble == SILENCE else 60)
    server.troubles = [trouble, trouble]

    assert target.labels(images(3)).tolist() == [0, 0, 0]

    assert server.sizes == [3, 3, 3]
    assert slept == [0.5, 1]
    assert target.unanswered == 6


def test_the_command_tells_how_many_queries_got_no_answer(server: TroubledServer, tmp_path: Path) -> None:
    (tmp_path / "bird").mkdir()
    for number in range(3):
        Image.new("RGB", (2, 2), (number, 0, 0)).save(tmp_path / "bird" / f"{number}.png")
    server.troubles = ["", RESET]

    options = ["--url", server.url, "--data", tmp_path, "--attack", "null", "--records", tmp_path / "records"]
    result = CliRunner().invoke(app, ["robustness", *map(str, options)])

    torch.set_flush_denormal(False)
    assert result.exit_code == 0, result.output
    assert "warning: 3 queries got no answer and were asked again" in result.stderr


def test_a_gateway_that_never_answers_is_given_up(
    server: TroubledServer, target: HTTPTarget, slept: list[float]
) -> None:
    server.troubles = [(504, {})] * 100

    with pytest.raises(EvaluationError, match=r"did not answer 5 times in a row: 504"):
        target.labels(images(1))

    assert slept == [0.5, 1, 2, 4]


def test_faults_far_apart_are_no_reason_to_give_up(server: TroubledServer, target: HTTPTarget) -> None:
    server.troubles = [RESET, RESET, "", RESET, RESET, "", RESET, RESET]

    assert len(target.labels(images(24))) == 24


def test_where_nobody_listens_nothing_can_have_been_counted(server: TroubledServer, slept: list[float]) -> None:
    with HTTPTarget(server.url, sleep=slept.append) as target:
        server.shutdown()
        server.server_close()
        target._gateway._http._transport.close()  # its open connection would still be served

        with pytest.raises(EvaluationError, match="ConnectError"):
            target.labels(images(1))

    assert target.unanswered == 0


def test_a_date_to_come_back_at_is_waited_for(server: TroubledServer, target: HTTPTarget, slept: list[float]) -> None:
    now = datetime.now(UTC)
    past, future = (format_datetime(now + timedelta(hours=hours), usegmt=True) for hours in (-1, 24))
    server.troubles = [(503, {"Retry-After": past}), (429, {"Retry-After": future}), (503, {"Retry-After": "7"})]

    assert target.labels(images(1)).tolist() == [0]

    assert (slept[0], slept[2]) == (0, 7)
    assert 23 * 3600 < slept[1] <= 24 * 3600
    assert target.unanswered == 0


@pytest.mark.parametrize("told", ["", "soon", "-3", "1.5", "Mon, 99 Foo 2026 00:00:00 GMT"])
def test_what_is_no_time_to_come_back_at_is_a_second(told: str) -> None:
    assert seconds_to_wait(told) == 1


def test_a_refusal_that_does_not_tell_the_quota_halves_the_batch(
    server: TroubledServer, target: HTTPTarget, slept: list[float]
) -> None:
    server.troubles = [(429, {}), (429, {}), (429, {}), (429, {})]

    assert len(target.labels(images(8))) == 8

    assert server.sizes == [8, 4, 2, 1, 1, 7]
    assert len(slept) == 1


def test_a_batch_that_the_quota_allows_later_is_waited_for_whole(
    server: TroubledServer, target: HTTPTarget, slept: list[float]
) -> None:
    spent = {"RateLimit-Policy": '"minute";q=8;w=60, "day";q=9;w=86400', "RateLimit": '"minute";r=0;t=3, "day";r=1;t=3'}
    server.troubles = [(429, spent | {"Retry-After": "3"})]

    target.labels(images(8))

    assert server.sizes == [8, 8]
    assert slept == [3]


def test_a_long_wait_is_told_and_a_short_one_is_not(
    server: TroubledServer, target: HTTPTarget, caplog: pytest.LogCaptureFixture
) -> None:
    server.troubles = [(503, {"Retry-After": "7"}), (429, {"Retry-After": "3600"})]

    target.labels(images(1))

    assert [one.getMessage() for one in caplog.records if one.name == "evaluation.gateway"] == [
        "the gateway refuses (429) for now: waiting 3600 s"
    ]


@pytest.mark.parametrize("trouble", [NOT_JSON, TOO_FEW, (500, {}), (401, {})])
def test_an_answer_that_is_none_is_told_at_once(server: TroubledServer, target: HTTPTarget, trouble: Trouble) -> None:
    server.troubles = [trouble]

    with pytest.raises(EvaluationError, match="answer"):
        target.labels(images(2))

    assert server.sizes == [2]


@pytest.mark.parametrize("defense", DEFENSES)
def test_defenses_that_draw_are_taken_for_random(server: TroubledServer, bundle_folder: Path, defense: str) -> None:
    server.information["defense"] = defense
    draws = build_defense(defense, read_bundle(bundle_folder)).draw(SeededBytes(1, torch.Generator()))

    with HTTPTarget(server.url) as target:
        assert target.deterministic == (draws.shape[1] == 0)


def test_draws_from_one_purifier_are_all_the_same(server: TroubledServer) -> None:
    server.information |= {"defense": "puridefense", "purifiers": ["only"]}

    with HTTPTarget(server.url) as target:
        assert target.deterministic


@pytest.mark.parametrize(("precision", "coarse"), [("float32", False), ("bfloat16", True), ("int8", True)])
def test_a_gateway_in_few_digits_is_taken_for_what_it_is(server: TroubledServer, precision: str, coarse: bool) -> None:
    server.information["precision"] = precision

    with HTTPTarget(server.url) as target:
        assert target.coarse == coarse


def test_a_defense_that_nobody_knows_is_taken_for_random(server: TroubledServer) -> None:
    server.information["defense"] = "of tomorrow"

    with HTTPTarget(server.url) as target:
        assert not target.deterministic
    assert set(DEFENSES) > WITHOUT_DRAWS


def result(best: int, **scores: float) -> GatewayResult:
    """A result that names `best` and tells the scores of classes `c0`, `c1`, ..."""
    told = tuple(GatewayScore(index=int(name[1:]), score=score) for name, score in scores.items())
    return GatewayResult(index=best, scores=told)


@pytest.mark.parametrize(
    ("told", "scores"),
    [
        (result(2, c2=0.4, c0=0.3, c1=0.2, c3=0.1), [0.3, 0.2, 0.4, 0.1]),
        (result(2, c2=0.6, c0=0.2), [0.2, 0.1, 0.6, 0.1]),
        (result(1, c1=0.85), [0.05, 0.85, 0.05, 0.05]),
        (result(1, c1=0.9, c0=0.02), [0.02, 0.9, 0.02, 0.02]),
        (result(1, c1=0.51, c0=0.5), [0.5, 0.51, 0.0, 0.0]),
    ],
    ids=["all are told", "the rest is shared", "one is told", "no more than the least that is told", "more than 1"],
)
def test_scores_that_are_not_told_share_what_is_left(told: GatewayResult, scores: list[float]) -> None:
    torch.testing.assert_close(row(told, 4), torch.tensor(scores))


@pytest.mark.parametrize("told", [result(2, c2=0.5, c0=0.5), result(3, c3=0.25), result(1, c1=0.0, c0=0.0)])
def test_the_class_that_the_gateway_names_is_the_best_where_scores_tie(told: GatewayResult) -> None:
    scores = row(told, 4)

    assert scores.argmax() == told.index
    torch.testing.assert_close(scores[told.index], torch.tensor(told.scores[0].score))


@pytest.mark.parametrize("told", [result(0), result(0, c4=0.5), result(4, c0=0.5)])
def test_scores_of_no_class_are_refused(told: GatewayResult) -> None:
    with pytest.raises(EvaluationError, match="of 4"):
        row(told, 4)


@pytest.mark.parametrize(
    ("told", "policy"),
    [
        (result(0, c0=0.71234, c1=0.28766), "scores"),
        (result(0, c0=0.71234), "top 1"),
        (result(0, c0=0.71, c1=0.29), "rounded"),
        (result(0, c0=0.71), "rounded top 1"),
        (result(0), "label"),
    ],
)
def test_an_answer_shows_the_policy(told: GatewayResult, policy: str) -> None:
    assert str(Policy.of(told, 2)) == policy


@pytest.fixture
def cell(target: HTTPTarget) -> Callable[[Policy, str], Cell]:
    """What a record says of an attack under a policy and a setup."""

    def make(policy: Policy, setup: str) -> Cell:
        target.policy = policy
        return gateway_cell(target, Job("none", Square(), queries=10), seed=0, setup=setup)

    return make


def test_a_key_that_is_told_everything_and_no_setup_leave_the_name_as_it_was(
    cell: Callable[[Policy, str], Cell],
) -> None:
    assert cell(Policy(2, 2, rounded=False), "").served.bundle == "toy 1"


def test_each_policy_and_setup_is_another_cell(cell: Callable[[Policy, str], Cell]) -> None:
    policies = [
        Policy(told, 2, rounded) for told, rounded in ((2, False), (2, True), (1, False), (1, True), (0, False))
    ]
    cells = [cell(policy, setup) for policy in policies for setup in ("", "sticky", "label")]

    assert len({one.digest() for one in cells}) == len(cells)
    assert cell(policies[3], "sticky, no shadow").served.bundle == "toy 1, rounded top 1, setup sticky, no shadow"


@pytest.mark.parametrize("setup", ["a/b", "a|b", "a\nb", "a\\b"])
def test_a_setup_that_no_file_or_table_could_bear_is_refused(cell: Callable[[Policy, str], Cell], setup: str) -> None:
    with pytest.raises(EvaluationError, match="is no setup"):
        cell(Policy(2, 2, rounded=False), setup)
