"""The route of the metrics; it is left out where they have a port of their own."""

from fastapi import APIRouter, Response

from service.dependencies import MetricsDependency

router = APIRouter(tags=["operations"])


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(metrics: MetricsDependency) -> Response:
    """All metrics in Prometheus' text format."""
    return Response(metrics.render(), media_type=metrics.content_type)
