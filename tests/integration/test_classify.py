"""What a client gets for an image, over a real socket."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import FakeEngine, Serve, Service

Png = Callable[[int], bytes]


def test_the_answer_has_the_shape_that_was_promised(service: "Service", png: Png) -> None:
    response = service.post(png(51))
    answer = response.json()
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
    assert answer == {
        "request_id": response.headers["X-Request-ID"],
        "bundle": {"name": "toy", "version": "1"},
        "label": "bird",
        "index": 1,
        "scores": [
            {"label": "bird", "index": 1, "score": pytest.approx(0.8)},
            {"label": "airplane", "index": 0, "score": pytest.approx(0.2)},
            {"label": "cat", "index": 2, "score": 0},
            {"label": "deer", "index": 3, "score": 0},
        ],
    }


def test_its_fields_come_in_the_order_that_was_promised(service: "Service", png: Png) -> None:
    answer = service.post(png(51)).json()
    assert list(answer) == ["request_id", "bundle", "label", "index", "scores"]
    assert list(answer["bundle"]) == ["name", "version"]
    assert list(answer["scores"][0]) == ["label", "index", "score"]


def test_a_form_with_one_file_is_answered_like_a_raw_body(service: "Service", png: Png) -> None:
    raw, form = service.post(png(51)).json(), service.post_files(png(51), path="/classify").json()
    assert raw | {"request_id": ""} == form | {"request_id": ""}


def test_a_batch_is_answered_in_the_order_sent(service: "Service", png: Png) -> None:
    answer = service.post_files(png(0), png(255), png(51), png(204)).json()
    assert [(result["label"], result["scores"][0]["score"]) for result in answer["results"]] == [
        ("bird", 1),
        ("airplane", 1),
        ("bird", pytest.approx(0.8)),
        ("airplane", pytest.approx(0.8)),
    ]


def test_the_answer_to_a_batch_has_the_shape_that_was_promised(service: "Service", png: Png) -> None:
    response = service.post_files(png(0), png(255))
    answer = response.json()
    assert list(answer) == ["request_id", "bundle", "results"]
    assert answer["request_id"] == response.headers["X-Request-ID"]
    assert answer["bundle"] == {"name": "toy", "version": "1"}
    assert [list(result) for result in answer["results"]] == [["label", "index", "scores"]] * 2


@pytest.mark.parametrize(("top_k", "told"), [("1", 1), ("3", 3), ("4", 4), ("100", 4)])
def test_as_many_scores_are_told_as_were_asked_for(service: "Service", png: Png, top_k: str, told: int) -> None:
    assert len(service.post(png(51), params={"top_k": top_k}).json()["scores"]) == told


def test_top_k_counts_for_each_image_of_a_batch(service: "Service", png: Png) -> None:
    files = [("file", ("image", png(red))) for red in (1, 2)]
    answer = service.client.post("/classify/batch", files=files, params={"top_k": 2}).json()
    assert [len(result["scores"]) for result in answer["results"]] == [2, 2]


def test_without_top_k_the_setting_says_how_many(serve: "Serve", engine: "FakeEngine", png: Png) -> None:
    assert len(serve(engine, default_top_k=2).post(png(51)).json()["scores"]) == 2


def test_a_sane_request_id_of_the_client_comes_back(service: "Service", png: Png) -> None:
    response = service.post(png(51), headers={"X-Request-ID": "load-test_7.1"})
    assert (response.headers["X-Request-ID"], response.json()["request_id"]) == ("load-test_7.1", "load-test_7.1")


@pytest.mark.parametrize("insane", ["a b", "x" * 129, "<script>", ""])
def test_an_insane_one_is_replaced(service: "Service", png: Png, insane: str) -> None:
    response = service.post(png(51), headers={"X-Request-ID": insane})
    assert response.headers["X-Request-ID"] not in {insane, ""}


def test_a_body_in_many_small_chunks_is_answered(service: "Service", png: Png) -> None:
    content = png(51)
    chunks = (content[index : index + 10] for index in range(0, len(content), 10))
    response = service.client.post("/classify", content=chunks, headers={"Content-Type": "image/png"})
    assert response.json()["label"] == "bird"


def test_the_bytes_decide_and_not_the_content_type(service: "Service", png: Png) -> None:
    assert service.post(png(51), headers={"Content-Type": "image/jpeg"}).status_code == 200


def test_one_connection_serves_request_after_request(service: "Service", png: Png) -> None:
    assert [service.post(png(red)).status_code for red in (1, 2, 3)] == [200] * 3
