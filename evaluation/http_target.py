"""A running gateway as the target: 8-bit PNG images over HTTP, scores or labels as its policy gives them."""

import io
import time
from types import TracebackType
from typing import Any, Self

import httpx
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from torch import Tensor

from evaluation.errors import EvaluationError

LEVELS = 255
TIMEOUT_SECONDS = 60
PATIENCE = 100
"""Refusals in a row (over quota, queue full) before an attack gives up."""
REFUSED = frozenset({httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE})


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

    model_config = ConfigDict(extra="ignore")

    bundle: GatewayBundle
    labels: tuple[str, ...]
    input: GatewayInput
    defense: str
    purifiers: tuple[str, ...]
    precision: str
    max_images_per_request: PositiveInt


class HTTPTarget:
    """A gateway, asked in batches; a refused batch waits as it is told and is sent again.

    An image is sent at the size of the classifier's input. A gateway whose bundle scales that up before it crops sees
    it scaled.

    Args:
        url: of the gateway.
        key: an API key, where the gateway asks for one.

    Raises:
        EvaluationError: no gateway answers there.
    """

    deterministic = False
    levels: int | None = LEVELS

    def __init__(self, url: str, key: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)
        try:
            answer = self._http.get("/info").raise_for_status()
            self.information = GatewayInformation.model_validate_json(answer.content)
        except (httpx.HTTPError, httpx.InvalidURL, ValidationError) as error:
            self._http.close()
            raise EvaluationError(f"{url}: no gateway answers here: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def scores(self, images: Tensor) -> Tensor:
        """The scores of all classes, which its policy has to give.

        Raises:
            EvaluationError: it gives labels only, or not all scores.
        """
        classes = len(self.information.labels)
        rows = []
        for result in self._ask(images, classes):
            scores = result.get("scores") or []
            if len(scores) != classes:
                raise EvaluationError(
                    f"the gateway tells {len(scores)} of {classes} scores; choose an attack on labels"
                )
            row = torch.zeros(classes)
            row[[one["index"] for one in scores]] = torch.tensor([one["score"] for one in scores])
            rows.append(row)
        return torch.stack(rows)

    def labels(self, images: Tensor) -> Tensor:
        """The best class of each image."""
        return torch.tensor([result["index"] for result in self._ask(images, 1)])

    def _ask(self, images: Tensor, top_k: int) -> list[dict[str, Any]]:
        results = []
        size = self.information.max_images_per_request
        for begin in range(0, len(images), size):
            parts = [("file", ("image.png", png(one), "image/png")) for one in images[begin : begin + size]]
            results += self._post(parts, top_k)
        return results

    def _post(self, parts: list[tuple[str, tuple[str, bytes, str]]], top_k: int) -> list[dict[str, Any]]:
        for _ in range(PATIENCE):
            try:
                answer = self._http.post("/classify/batch", files=parts, params={"top_k": top_k})
            except httpx.HTTPError as error:
                raise EvaluationError(f"the gateway does not answer: {error}") from error
            if answer.status_code == httpx.codes.OK:
                results: list[dict[str, Any]] = answer.json()["results"]
                return results
            if answer.status_code not in REFUSED:
                break
            time.sleep(float(answer.headers.get("Retry-After", 1)))
        raise EvaluationError(f"the gateway answers {answer.status_code}: {answer.text}")


def png(image: Tensor) -> bytes:
    """`(3, H, W)` floats in [0, 1] as the bytes of an 8-bit PNG."""
    pixels = (image * LEVELS).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
