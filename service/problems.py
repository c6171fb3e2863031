"""Errors as RFC 9457 problems: one renderer for every way in which a request can fail."""

from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.errors import (
    INTERNAL,
    PROBLEMS,
    GatewayError,
    InvalidParameterError,
    NotReadyError,
    Problem,
    RetryableError,
)
from service.metrics import Metrics
from service.readiness import REASONS, RETRY_AFTER_SECONDS
from service.schemas import ProblemAnswer

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:purigate:problem:"


def problem_response(
    problem: Problem, detail: str, request_id: str, headers: Mapping[str, str] | None = None
) -> Response:
    """A problem as an HTTP answer."""
    answer = ProblemAnswer(
        type=TYPE_PREFIX + problem.slug,
        title=problem.title,
        status=problem.status,
        detail=detail,
        request_id=request_id,
    )
    return Response(answer.model_dump_json(), problem.status, headers, MEDIA_TYPE)


def internal_error(request_id: str) -> Response:
    """The answer to an error that nobody foresaw; it tells nothing of the inside."""
    return problem_response(INTERNAL, "the service failed on this request", request_id)


def not_ready(request_id: str) -> Response:
    """The answer to a request that the service, which ends, has no time left for."""
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return problem_response(PROBLEMS[NotReadyError], REASONS["draining"], request_id, headers)


def problem_responses(*errors: type[GatewayError]) -> dict[int | str, dict[str, Any]]:
    """How `errors`, and one that nobody foresaw, are answered, for the OpenAPI document."""
    documented: dict[int | str, dict[str, Any]] = {}
    for problem in (*(PROBLEMS[error] for error in errors), INTERNAL):
        titles = documented.setdefault(int(problem.status), {"titles": []})["titles"]
        titles.append(problem.title)
    schema = ProblemAnswer.model_json_schema()
    return {
        status: {"description": "; ".join(entry["titles"]), "content": {MEDIA_TYPE: {"schema": schema}}}
        for status, entry in documented.items()
    }


def install_problem_handlers(app: FastAPI) -> None:
    """Makes `app` answer its own errors and the framework's as problems."""
    app.add_exception_handler(GatewayError, _gateway_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)


async def _gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    problem = PROBLEMS[type(error)]
    metrics: Metrics = request.state.metrics
    metrics.rejected.labels(reason=problem.slug).inc()
    headers = {}
    if isinstance(error, RetryableError):
        headers["Retry-After"] = str(max(1, ceil(error.retry_after)))
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return problem_response(problem, str(error), request.state.request_id, headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    reasons = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
    return await _gateway_error(request, InvalidParameterError("; ".join(reasons)))


async def _http_error(request: Request, error: Exception) -> Response:
    """The framework's own: an unknown path, a method that a path does not have."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    problem = Problem(slug=status.phrase.lower().replace(" ", "-"), status=status, title=status.phrase)
    return problem_response(problem, error.detail, request.state.request_id, error.headers)
