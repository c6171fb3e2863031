"""The routes that change what is served; only admin keys may use them."""

from fastapi import APIRouter, Depends

from service.dependencies import GatewayDependency, KeyringDependency, RequestId, authenticate_admin
from service.errors import (
    BundleRefusedError,
    ForbiddenError,
    NotReadyError,
    ReloadRunningError,
    UnauthenticatedError,
)
from service.problems import problem_responses
from service.schemas import Answer, BundleName

PROBLEMS = (UnauthenticatedError, ForbiddenError, ReloadRunningError, BundleRefusedError, NotReadyError)

router = APIRouter(
    prefix="/admin",
    tags=["admin"],
    dependencies=[Depends(authenticate_admin)],
    responses=problem_responses(*PROBLEMS),
)


@router.post("/reload", summary="Load the keys and the bundle anew")
async def reload(gateway: GatewayDependency, keyring: KeyringDependency, request_id: RequestId) -> Answer:
    """Answers once the new bundle serves; if it cannot, the old one goes on and the answer says why."""
    if keyring:
        keyring.reload()
    manifest = await gateway.reload()
    return Answer(request_id=request_id, bundle=BundleName(name=manifest.name, version=manifest.version))
