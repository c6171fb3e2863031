"""Builds the app out of its parts; the lifespan opens and closes what holds resources."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from service.dependencies import State
from service.engine import Engine
from service.gateway import Gateway
from service.http_middleware import RequestMiddleware
from service.keyring import Keyring
from service.loading import load_engine
from service.metrics import Metrics
from service.problems import install_problem_handlers
from service.quotas import Quotas
from service.routes import classify, operations
from service.settings import Settings

DESCRIPTION = "A defended image classifier: every image passes once through a random patch-wise purification."


def create_app(
    settings: Settings,
    *,
    engine: Engine | None = None,
    metrics: Metrics | None = None,
    on_open: Callable[[Gateway], None] = lambda _gateway: None,
    on_dead: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The service as an ASGI app; nothing is loaded before its lifespan starts.

    Args:
        settings: of the service.
        engine: what answers; by default the bundle of the settings on their device.
        metrics: those that `engine` counts in, if it was made outside.
        on_open: told the gateway once it is open, so that a server can drain it when it is asked to stop.
        on_dead: called if the engine cannot even be warmed up.

    Raises, when the lifespan starts:
        models.bundle.BundleError: the bundle cannot be served.
        service.keys.KeysFileError: the keys cannot be read.
        service.engine.DeviceMissingError: the device does not exist.
    """
    metrics = metrics or Metrics()
    metrics.device_hour_price.set(settings.device_hour_price_dollars)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[State]:
        keys = Keyring(settings.keys_file, metrics) if settings.keys_file else None
        async with AsyncExitStack() as stack:
            gateway = Gateway(settings, engine or load_engine(settings, metrics), metrics, on_dead)
            _describe(metrics, gateway, settings)
            quotas = Quotas.of(settings, metrics)
            await stack.enter_async_context(quotas.open())
            await stack.enter_async_context(gateway.open())
            if keys:
                following = asyncio.create_task(keys.follow())
                stack.callback(following.cancel)
            on_open(gateway)
            yield State(settings=settings, metrics=metrics, gateway=gateway, keys=keys, quotas=quotas)

    app = FastAPI(
        title="Purigate",
        version=version("purigate"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.include_router(classify.router)
    app.include_router(operations.router)
    app.add_middleware(RequestMiddleware, metrics=metrics)
    install_problem_handlers(app)
    return app


def _describe(metrics: Metrics, gateway: Gateway, settings: Settings) -> None:
    engine = gateway.engine
    metrics.build.info({"version": version("purigate"), "device": engine.device, "precision": engine.precision})
    metrics.bundle.info({"name": engine.manifest.name, "version": engine.manifest.version, "defense": settings.defense})
