"""Builds the app out of its parts; the lifespan opens and closes what holds resources."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from service.audit import AuditLog
from service.bodies import Bodies
from service.dependencies import State
from service.engine import Engine
from service.gateway import Gateway
from service.http_middleware import RequestMiddleware
from service.keyring import Keyring
from service.loading import load_engine
from service.metrics import Metrics
from service.metrics_listener import listen
from service.problems import install_problem_handlers
from service.quotas import Quotas
from service.routes import admin, classify, operations
from service.routes import metrics as metrics_route
from service.settings import Settings

DESCRIPTION = "A defended image classifier: every image passes once through a random patch-wise purification."
NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
"""FastAPI's own, which looks at every request whether anybody has configured it; `service.metrics` is ours."""


def create_app(
    settings: Settings,
    *,
    engine: Engine | None = None,
    load: Callable[[], Engine] | None = None,
    metrics: Metrics | None = None,
    on_open: Callable[[State], None] = lambda _state: None,
    on_dead: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The service as an ASGI app; nothing is loaded before its lifespan starts.

    Args:
        settings: of the service.
        engine: what answers at first; by default what `load` gives.
        load: makes an engine, at the start and for every reload; by default the settings' bundle on their device.
        metrics: those that `engine` counts in, if it was made outside.
        on_open: told what is open, so that a server can drain or reload it when it is told to.
        on_dead: called if the engine is beyond recovery.

    Raises, when the lifespan starts:
        models.bundle.BundleError: the bundle cannot be served.
        service.keys.KeysFileError: the keys cannot be read.
        models.device.PlacementError: the device does not exist, or cannot compute in the precision.
        OSError: the audit log or the port of the metrics cannot be opened.
        service.secret_file.SecretError: a secret cannot be read.
    """
    metrics = metrics or Metrics()
    load = load or partial(load_engine, settings, metrics)
    metrics.device_hour_price.set(settings.device_hour_price_dollars)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[State]:
        keys = Keyring(settings.keys_file, metrics) if settings.keys_file else None
        async with AsyncExitStack() as stack:
            if settings.metrics_port is not None:
                stack.enter_context(listen(metrics, settings.host, settings.metrics_port))
            first = engine or load()
            metrics.build.info({"version": version("purigate"), "device": first.device, "precision": first.precision})
            gateway = Gateway(settings, first, load, metrics, on_dead)
            quotas = Quotas.of(settings, metrics)
            await stack.enter_async_context(quotas.open())
            await stack.enter_async_context(gateway.open())
            if keys:
                following = asyncio.create_task(keys.follow())
                stack.callback(following.cancel)
            audit = stack.enter_context(AuditLog.open(settings, metrics))
            bodies = Bodies(settings.max_waiting_bytes, metrics)
            state = State(
                settings=settings,
                metrics=metrics,
                gateway=gateway,
                keys=keys,
                quotas=quotas,
                bodies=bodies,
                audit=audit,
            )
            on_open(state)
            yield state

    app = FastAPI(
        title="Purigate",
        version=version("purigate"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    routers = [classify.router, operations.router, admin.router]
    if settings.metrics_port is None:
        routers.append(metrics_route.router)
    # Ours come before FastAPI's own, and as they are: an included router would match every request a second time.
    app.router.routes[:0] = [route for router in routers for route in router.routes]
    app.add_middleware(RequestMiddleware, metrics=metrics)
    install_problem_handlers(app)
    return app
