"""The routes that answer queries."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from service.audit import AuditLog
from service.body import FILE_PART, MULTIPART, read_images
from service.connection import while_connected
from service.dependencies import (
    AuditDependency,
    BodyDependency,
    GatewayDependency,
    KeyDependency,
    QuotaDependency,
    RequestId,
    SettingsDependency,
    authenticate,
)
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
from service.keys import Key
from service.policy import tell
from service.problems import problem_responses
from service.schemas import BatchAnswer, BundleName, Classification, ClassifyAnswer
from service.settings import Settings

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

router = APIRouter(tags=["classify"], dependencies=[Depends(authenticate)], responses=problem_responses(*PROBLEMS))

TopK = Annotated[int | None, Query(ge=1, description="How many scores to answer with; all if there are fewer.")]

RAW_BODY: dict[str, Any] = {
    media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in SERVED_TYPES.values()
}


def _multipart_body(schema: dict[str, Any]) -> dict[str, Any]:
    form = {"type": "object", "required": [FILE_PART], "properties": {FILE_PART: schema}}
    return {MULTIPART: {"schema": form}}


ONE_FILE = {"type": "string", "format": "binary"}
MANY_FILES = {"type": "array", "minItems": 1, "items": ONE_FILE}


class Teller:
    """Tells whoever asks what came of its images, and the audit log that it was told.

    Args:
        settings: of the service.
        key: of whoever asks.
        audit: the log, if there is one.
        request_id: of the request.
    """

    def __init__(self, settings: Settings, key: Key | None, audit: AuditLog | None, request_id: str) -> None:
        self.request_id = request_id
        self._settings = settings
        self._key = key
        self._audit = audit

    def tell(self, answers: Answers, top_k: int | None) -> list[Classification]:
        """What the holder of the key may know of each image."""
        output = self._key.output if self._key else self._settings.output
        most = self._settings.default_top_k
        labels = answers.manifest.labels
        told = [tell(one.scores, labels, output, top_k or most, most) for one in answers.predictions]
        if self._audit:
            for image, prediction, one in zip(answers.images, answers.predictions, told, strict=True):
                self._audit.record(
                    image,
                    request_id=self.request_id,
                    key=self._key.id if self._key else None,
                    label=one.label,
                    defense=self._settings.defense,
                    shadow=self._settings.shadow,
                    bundle=answers.manifest.version,
                    draw=prediction.draw,
                )
        return told


async def _teller(
    settings: SettingsDependency, key: KeyDependency, audit: AuditDependency, request_id: RequestId
) -> Teller:
    return Teller(settings, key, audit, request_id)


TellerDependency = Annotated[Teller, Depends(_teller)]


@router.post(
    "/classify",
    summary="Classify one image",
    response_model_exclude_none=True,
    openapi_extra={"requestBody": {"required": True, "content": RAW_BODY | _multipart_body(ONE_FILE)}},
)
async def classify(
    request: Request,
    settings: SettingsDependency,
    gateway: GatewayDependency,
    quota: QuotaDependency,
    body: BodyDependency,
    teller: TellerDependency,
    top_k: TopK = None,
) -> ClassifyAnswer:
    """Send a JPEG, PNG or WebP image as the raw body (the fast path), or as the one `file` part of a form."""
    gateway.refuse_unless_open()
    quota.refuse_if_spent()
    images = await read_images(request, settings, max_images=1, body=body)
    deadline = gateway.begin()
    gateway.refuse_unless_open(len(images))
    await quota.take(len(images), deadline)
    answers = await while_connected(request, gateway.classify(images, deadline))
    (result,) = teller.tell(answers, top_k)
    return ClassifyAnswer(
        request_id=teller.request_id,
        bundle=_bundle(answers),
        label=result.label,
        index=result.index,
        scores=result.scores,
    )


@router.post(
    "/classify/batch",
    summary="Classify several images",
    response_model_exclude_none=True,
    openapi_extra={"requestBody": {"required": True, "content": _multipart_body(MANY_FILES)}},
)
async def classify_batch(
    request: Request,
    settings: SettingsDependency,
    gateway: GatewayDependency,
    quota: QuotaDependency,
    body: BodyDependency,
    teller: TellerDependency,
    top_k: TopK = None,
) -> BatchAnswer:
    """Send several `file` parts; each is one query. The results come in the order sent."""
    gateway.refuse_unless_open()
    quota.refuse_if_spent()
    images = await read_images(request, settings, max_images=settings.max_images_per_request, body=body)
    deadline = gateway.begin()
    gateway.refuse_unless_open(len(images))
    await quota.take(len(images), deadline)
    answers = await while_connected(request, gateway.classify(images, deadline))
    results = teller.tell(answers, top_k)
    return BatchAnswer(request_id=teller.request_id, bundle=_bundle(answers), results=results)


def _bundle(answers: Answers) -> BundleName:
    return BundleName(name=answers.manifest.name, version=answers.manifest.version)
