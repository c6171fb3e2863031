"""The routes that answer queries."""

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field, TypeAdapter, ValidationError

from service.body import FILE_PART, MULTIPART, read_images
from service.connection import while_connected
from service.dependencies import Visit, visit_of
from service.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    DeadlinePassedError,
    DeviceFaultError,
    InvalidParameterError,
    MalformedRequestError,
    NotReadyError,
    QueueFullError,
    QuotaExceededError,
    QuotaStoreError,
    TooManyPixelsError,
    UnauthenticatedError,
    UndecodableImageError,
    UnsupportedImageTypeError,
)
from service.gateway import Answers
from service.images import SERVED_TYPES
from service.policy import tell
from service.problems import problem_responses
from service.routes.plain import PlainRoute
from service.schemas import Answer, BatchAnswer, BundleName, Classification, ClassifyAnswer

PROBLEMS = (
    MalformedRequestError,
    UnauthenticatedError,
    BodyTimeoutError,
    BodyTooLargeError,
    UnsupportedImageTypeError,
    UndecodableImageError,
    TooManyPixelsError,
    InvalidParameterError,
    QuotaExceededError,
    QuotaStoreError,
    QueueFullError,
    NotReadyError,
    DeviceFaultError,
    DeadlinePassedError,
)

router = APIRouter(tags=["classify"], responses=problem_responses(*PROBLEMS), route_class=PlainRoute)

JSON = "application/json"

TOP_K = "top_k"
TOP_K_TEXT = "How many scores to answer with; all if there are fewer."
TOP_K_TYPE: TypeAdapter[int | None] = TypeAdapter(
    Annotated[Annotated[int, Field(ge=1)] | None, Field(title="Top K", description=TOP_K_TEXT)]
)
PARAMETERS = [
    {
        "name": TOP_K,
        "in": "query",
        "required": False,
        "schema": TOP_K_TYPE.json_schema(),
        "description": TOP_K_TEXT,
    }
]

RAW_BODY: dict[str, Any] = {
    media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in SERVED_TYPES.values()
}


def _multipart_body(schema: dict[str, Any]) -> dict[str, Any]:
    form = {"type": "object", "required": [FILE_PART], "properties": {FILE_PART: schema}}
    return {MULTIPART: {"schema": form}}


def _documented(body: dict[str, Any]) -> dict[str, Any]:
    return {"parameters": PARAMETERS, "requestBody": {"required": True, "content": body}}


ONE_FILE = {"type": "string", "format": "binary"}
MANY_FILES = {"type": "array", "minItems": 1, "items": ONE_FILE}


@router.post(
    "/classify",
    summary="Classify one image",
    response_model=ClassifyAnswer,
    openapi_extra=_documented(RAW_BODY | _multipart_body(ONE_FILE)),
)
async def classify(request: Request) -> Response:
    """Send a JPEG, PNG or WebP image as the raw body (the fast path), or as the one `file` part of a form."""
    visit = await visit_of(request)
    top_k = _top_k(request)
    answers = await _answers(request, visit, max_images=1)
    (result,) = _told(visit, answers, top_k)
    return _response(
        ClassifyAnswer(
            request_id=visit.request_id,
            bundle=_bundle(answers),
            label=result.label,
            index=result.index,
            scores=result.scores,
        )
    )


@router.post(
    "/classify/batch",
    summary="Classify several images",
    response_model=BatchAnswer,
    openapi_extra=_documented(_multipart_body(MANY_FILES)),
)
async def classify_batch(request: Request) -> Response:
    """Send several `file` parts; each is one query. The results come in the order sent."""
    visit = await visit_of(request)
    top_k = _top_k(request)
    answers = await _answers(request, visit, visit.settings.max_images_per_request)
    results = _told(visit, answers, top_k)
    return _response(BatchAnswer(request_id=visit.request_id, bundle=_bundle(answers), results=results))


def _top_k(request: Request) -> int | None:
    """How many scores a client asks for.

    Raises:
        InvalidParameterError: it asks for no number, or for none.
    """
    try:
        return TOP_K_TYPE.validate_python(request.query_params.get(TOP_K))
    except ValidationError as error:
        raise InvalidParameterError(f"{TOP_K}: {error.errors()[0]['msg']}") from error


async def _answers(request: Request, visit: Visit, max_images: int) -> Answers:
    """What comes of the images of a request, once they are read and counted."""
    gateway = visit.gateway
    gateway.refuse_unless_open()
    visit.quota.refuse_if_spent()
    with visit.bodies.open() as body:
        images = await read_images(request, visit.settings, max_images, body)
        deadline = gateway.begin()
        with gateway.reserve(len(images)) as take_over:
            await visit.quota.take(len(images), deadline)
            return await while_connected(request, gateway.classify(images, deadline, take_over))


def _told(visit: Visit, answers: Answers, top_k: int | None) -> list[Classification]:
    """What whoever asks may know of each image; the audit log is told of it too."""
    output = visit.key.output if visit.key else visit.settings.output
    most = visit.settings.default_top_k
    labels = answers.manifest.labels
    told = [tell(one.scores, labels, output, top_k or most, most) for one in answers.predictions]
    if visit.audit:
        for image, prediction, one in zip(answers.images, answers.predictions, told, strict=True):
            visit.audit.record(
                image,
                request_id=visit.request_id,
                key=visit.key.id if visit.key else None,
                label=one.label,
                defense=visit.settings.defense,
                shadow=visit.settings.shadow,
                bundle=answers.manifest.version,
                draw=prediction.draw,
            )
    return told


def _response(answer: Answer) -> Response:
    return Response(answer.model_dump_json(exclude_none=True), media_type=JSON)


def _bundle(answers: Answers) -> BundleName:
    return BundleName(name=answers.manifest.name, version=answers.manifest.version)
