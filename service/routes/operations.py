"""The routes for operators and their tools: probes, and what is served."""

from importlib.metadata import version

from fastapi import APIRouter, Response, status

from service.dependencies import GatewayDependency, SettingsDependency
from service.images import SERVED_TYPES
from service.schemas import BundleName, Information, InputSize, Liveness, Readiness

router = APIRouter(tags=["operations"])


@router.get("/livez", summary="Is the process alive?")
async def livez() -> Liveness:
    """Answers 200 as long as the event loop turns."""
    return Liveness()


@router.get(
    "/readyz",
    summary="Are queries served now?",
    responses={status.HTTP_503_SERVICE_UNAVAILABLE: {"model": Readiness, "description": "Not now"}},
)
async def readyz(gateway: GatewayDependency, response: Response) -> Readiness:
    """Answers 200 after the warm-up of every purifier; 503 before, while draining, and after a device fault."""
    state = gateway.readiness.state
    if state != "ready":
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return Readiness(status=state)


@router.get("/info", summary="What is served")
async def info(gateway: GatewayDependency, settings: SettingsDependency) -> Information:
    """The bundle, the defense and the limits; no secrets."""
    engine = gateway.engine
    manifest = engine.manifest
    return Information(
        version=version("purigate"),
        bundle=BundleName(name=manifest.name, version=manifest.version),
        labels=list(manifest.labels),
        input=InputSize(height=manifest.preprocessing.height, width=manifest.preprocessing.width),
        defense=settings.defense,
        purifiers=list(engine.purifiers),
        device=engine.device,
        precision=engine.precision,
        image_types=list(SERVED_TYPES.values()),
        max_body_bytes=settings.max_body_bytes,
        max_pixels=settings.max_pixels,
        max_images_per_request=settings.max_images_per_request,
    )
