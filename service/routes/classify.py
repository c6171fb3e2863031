"""The routes that answer queries."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from service.body import FILE_PART, MULTIPART, read_images
from service.connection import while_connected
from service.dependencies import GatewayDependency, RequestId, SettingsDependency, authenticate
from service.gateway import Gateway
from service.images import SERVED_TYPES
from service.policy import best_scores
from service.problems import problem_responses
from service.schemas import BatchAnswer, BundleName, Classification, ClassifyAnswer

router = APIRouter(tags=["classify"], dependencies=[Depends(authenticate)], responses=problem_responses())

TopK = Annotated[int | None, Query(ge=1, description="How many scores to answer with; all if there are fewer.")]

RAW_BODY: dict[str, Any] = {
    media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in SERVED_TYPES.values()
}


def _multipart_body(schema: dict[str, Any]) -> dict[str, Any]:
    form = {"type": "object", "required": [FILE_PART], "properties": {FILE_PART: schema}}
    return {MULTIPART: {"schema": form}}


ONE_FILE = {"type": "string", "format": "binary"}
MANY_FILES = {"type": "array", "minItems": 1, "items": ONE_FILE}


@router.post(
    "/classify",
    summary="Classify one image",
    openapi_extra={"requestBody": {"required": True, "content": RAW_BODY | _multipart_body(ONE_FILE)}},
)
async def classify(
    request: Request,
    settings: SettingsDependency,
    gateway: GatewayDependency,
    request_id: RequestId,
    top_k: TopK = None,
) -> ClassifyAnswer:
    """Send a JPEG, PNG or WebP image as the raw body (the fast path), or as the one `file` part of a form."""
    gateway.refuse_unless_ready()
    images = await read_images(request, settings, max_images=1)
    (result,) = await _results(request, gateway, images, top_k or settings.default_top_k)
    return ClassifyAnswer(
        request_id=request_id, bundle=_bundle(gateway), label=result.label, index=result.index, scores=result.scores
    )


@router.post(
    "/classify/batch",
    summary="Classify several images",
    openapi_extra={"requestBody": {"required": True, "content": _multipart_body(MANY_FILES)}},
)
async def classify_batch(
    request: Request,
    settings: SettingsDependency,
    gateway: GatewayDependency,
    request_id: RequestId,
    top_k: TopK = None,
) -> BatchAnswer:
    """Send several `file` parts; each is one query. The results come in the order sent."""
    gateway.refuse_unless_ready()
    images = await read_images(request, settings, max_images=settings.max_images_per_request)
    results = await _results(request, gateway, images, top_k or settings.default_top_k)
    return BatchAnswer(request_id=request_id, bundle=_bundle(gateway), results=results)


async def _results(request: Request, gateway: Gateway, images: list[bytes], top_k: int) -> list[Classification]:
    scores = await while_connected(request, gateway.classify(images))
    labels = gateway.engine.manifest.labels
    return [best_scores(one, labels, top_k) for one in scores]


def _bundle(gateway: Gateway) -> BundleName:
    manifest = gateway.engine.manifest
    return BundleName(name=manifest.name, version=manifest.version)
