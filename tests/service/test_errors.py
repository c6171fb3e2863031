"""The table of problems."""

from http import HTTPStatus

import pytest

from service.errors import INTERNAL, PROBLEMS, BadImageError, GatewayError, QuotaExceededError, RetryableError


def kinds(error: type[GatewayError]) -> set[type[GatewayError]]:
    below = error.__subclasses__()
    return {error}.union(*map(kinds, below)) if below else {error}


def test_every_error_has_its_problem() -> None:
    assert set(PROBLEMS) == kinds(GatewayError) - {GatewayError, RetryableError, BadImageError}


def test_no_two_problems_share_a_slug() -> None:
    slugs = [problem.slug for problem in (*PROBLEMS.values(), INTERNAL)]
    assert len(slugs) == len(set(slugs))


@pytest.mark.parametrize("error", PROBLEMS)
def test_what_may_succeed_later_is_429_or_503_and_nothing_else_is(error: type[GatewayError]) -> None:
    later = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
    assert issubclass(error, RetryableError) == (PROBLEMS[error].status in later)


def test_only_a_quota_is_429() -> None:
    assert [error for error, one in PROBLEMS.items() if one.status == HTTPStatus.TOO_MANY_REQUESTS] == [
        QuotaExceededError
    ]
