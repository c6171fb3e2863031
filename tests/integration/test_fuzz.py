"""Hostile requests against a real server; `python -m benchmarks.fuzz --inputs 10000` sends more."""

from typing import TYPE_CHECKING, Any

import httpx
from schemathesis import Case

from benchmarks.fuzz import Tally, cases, fuzz
from benchmarks.images import mutated_images

if TYPE_CHECKING:
    from tests.integration.conftest import Service

EACH = 12
IMAGES = 150


def test_nothing_that_the_openapi_document_allows_or_forbids_is_answered_500(real_service: "Service") -> None:
    tally = Tally()
    url = f"http://127.0.0.1:{real_service.port}"

    def ask(case: "Case[Any]") -> int:
        return int(case.call(base_url=url, timeout=30).status_code)

    for strategy in cases(url):
        fuzz(strategy, ask, EACH, tally, 0)
    assert tally.faults == []
    assert {200, 400} <= set(tally.statuses)


def test_no_mutated_image_is_answered_500(real_service: "Service") -> None:
    tally = Tally()
    fuzz(mutated_images(), lambda content: real_service.post(content).status_code, IMAGES, tally, 0)
    assert tally.faults == []
    assert {200, 422} <= set(tally.statuses)


def test_an_error_of_the_server_and_a_hang_are_faults() -> None:
    tally = Tally()
    answers = {"answered": 200, "refused": 422, "broken": 500, "overloaded": 503}

    def ask(request: str) -> int:
        if request == "hangs":
            raise httpx.ReadTimeout("no answer")
        return answers[request]

    for request in (*answers, "hangs"):
        tally.count(ask, request)
    assert [fault.partition("(")[0] for fault in tally.faults] == ["500: 'broken'", "503: 'overloaded'", "ReadTimeout"]
    assert tally.asked == 5
