"""A running gateway, asked in batches with patience: for quotas, for busy times, and for answers that never come."""

import logging
import re
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime

import httpx
from pydantic import BaseModel, NonNegativeInt, PositiveInt, ValidationError

from evaluation.errors import EvaluationError

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 60
PATIENCE = 100
"""Refusals in a row (over quota, queue full) before an attack gives up."""
FAULT_PATIENCE = 5
"""Times in a row that no answer comes before an attack gives up."""
FIRST_PAUSE_SECONDS = 0.5
"""After a first fault; each further one doubles it."""
LONG_WAIT_SECONDS = 10
"""A wait of so many or more is told: a silent attack looks like one that hangs."""
REFUSED = frozenset({httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE})
UNANSWERED = frozenset({httpx.codes.BAD_GATEWAY, httpx.codes.GATEWAY_TIMEOUT})
"""Of the gateway's deadline, and of a proxy before it."""
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout)
DEVICE_FAULT = "urn:purigate:problem:device-fault"
"""The only refusal that comes after the queries were counted."""


class GatewayInput(BaseModel):
    """What the classifier sees of an image, in pixels."""

    height: PositiveInt
    width: PositiveInt


class GatewayBundle(BaseModel):
    """What is served."""

    name: str
    version: str


class GatewayInformation(BaseModel):
    """The part of a gateway's `/info` that an attack needs."""

    bundle: GatewayBundle
    labels: tuple[str, ...]
    input: GatewayInput
    defense: str
    purifiers: tuple[str, ...]
    precision: str
    max_images_per_request: PositiveInt


class GatewayScore(BaseModel):
    """The score of one class."""

    index: NonNegativeInt
    score: float


class GatewayResult(BaseModel):
    """The part of an answer about one image that an attack needs.

    Attributes:
        index: of the best class.
        scores: as many as the gateway tells; none where it tells labels alone.
    """

    index: NonNegativeInt
    scores: tuple[GatewayScore, ...] = ()


class GatewayAnswer(BaseModel):
    """One result an image, in the order sent."""

    results: tuple[GatewayResult, ...]


class Gateway:
    """A client that goes on where a gateway refuses or does not answer.

    A batch that the quota does not allow is divided until it does; else a refusal is waited for as the gateway says. A
    batch that got no answer is sent again a few times, with pauses that double.

    Args:
        url: of the gateway.
        key: an API key, where the gateway asks for one.
        sleep: waits so many seconds.

    Attributes:
        information: what the gateway serves.
        unanswered: queries that were sent and not answered. They were asked again; the gateway may have counted them
            as well, so its count may be higher by so many than that of the attack.

    Raises:
        EvaluationError: no gateway answers there.
    """

    def __init__(self, url: str, key: str | None, sleep: Callable[[float], None]) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)
        self._sleep = sleep
        self.unanswered = 0
        try:
            answer = self._http.get("/info").raise_for_status()
            self.information = GatewayInformation.model_validate_json(answer.content)
        except (httpx.HTTPError, httpx.InvalidURL, ValidationError) as error:
            self._http.close()
            raise EvaluationError(f"{url}: no gateway answers here: {error}") from error

    def close(self) -> None:
        """Ends the connection."""
        self._http.close()

    def ask(self, images: Sequence[bytes], top_k: int) -> list[GatewayResult]:
        """The result of each PNG, with the `top_k` best scores if the gateway tells as many.

        Raises:
            EvaluationError: it refuses for good, or patience ran out.
        """
        results: list[GatewayResult] = []
        most = self.information.max_images_per_request
        size, refusals, faults = most, 0, 0
        while batch := images[len(results) : len(results) + size]:
            answer, reason = self._send(batch, top_k)
            if answer is None:
                faults += 1
                if faults == FAULT_PATIENCE:
                    raise EvaluationError(f"the gateway did not answer {faults} times in a row: {reason}")
                self._sleep(FIRST_PAUSE_SECONDS * 2 ** (faults - 1))
            elif answer.status_code == httpx.codes.OK:
                results += _results(answer, len(batch))
                size, refusals, faults = most, 0, 0
            elif fewer := _fewer(answer, len(batch)):
                size = fewer
            else:
                refusals += 1
                if answer.status_code not in REFUSED or refusals == PATIENCE:
                    raise EvaluationError(f"the gateway answers {reason}")
                self._wait(answer)
        return results

    def _wait(self, refusal: httpx.Response) -> None:
        """As long as the gateway says."""
        seconds = seconds_to_wait(refusal.headers.get("Retry-After", ""))
        if seconds >= LONG_WAIT_SECONDS:
            log.warning("the gateway refuses (%d) for now: waiting %.0f s", refusal.status_code, seconds)
        self._sleep(seconds)

    def _send(self, batch: Sequence[bytes], top_k: int) -> tuple[httpx.Response | None, str]:
        """The answer, or none if none came; and what there is to say of it. Notes what may have been counted."""
        parts = [("file", ("image.png", one, "image/png")) for one in batch]
        try:
            answer = self._http.post("/classify/batch", files=parts, params={"top_k": top_k})
        except httpx.HTTPError as error:
            self.unanswered += 0 if isinstance(error, NEVER_SENT) else len(batch)
            return None, f"{type(error).__name__}: {error}"
        lost = answer.status_code in UNANSWERED
        if lost or (answer.status_code in REFUSED and DEVICE_FAULT in answer.text):
            self.unanswered += len(batch)
        return None if lost else answer, f"{answer.status_code}: {answer.text}"


def seconds_to_wait(retry_after: str) -> float:
    """What `Retry-After` says, in seconds or as an HTTP date (RFC 9110, section 10.2.3); 1 where it says neither."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return 1.0


def _fewer(answer: httpx.Response, asked: int) -> int | None:
    """How many images to send instead of so many that are over the quota; none if it is to be waited for.

    What is left goes at once. Where nothing is left, so many as the quota never allows, or may not as far as we are
    told, are halved: to wait for them could be in vain.
    """
    if answer.status_code != httpx.codes.TOO_MANY_REQUESTS or asked == 1:
        return None
    left = min(_numbers("r", answer.headers.get("RateLimit", "")), default=0)
    allowed = min(_numbers("q", answer.headers.get("RateLimit-Policy", "")), default=0)
    if left:
        return min(left, asked - 1)
    return asked // 2 if asked > allowed else None


def _numbers(name: str, field: str) -> list[int]:
    """The parameter of each window in a field of the IETF draft (draft-ietf-httpapi-ratelimit-headers-10)."""
    return [int(number) for number in re.findall(rf";{name}=(\d+)", field)]


def _results(answer: httpx.Response, images: int) -> tuple[GatewayResult, ...]:
    try:
        results = GatewayAnswer.model_validate_json(answer.content).results
    except ValidationError as error:
        raise EvaluationError(f"the gateway's answer is not one: {error}") from error
    if len(results) != images:
        raise EvaluationError(f"the gateway answers about {len(results)} of {images} images")
    return results
