"""The process: uvicorn, and what happens at its start and its end."""

import asyncio
import gc
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.dependencies import State
from service.engine import Engine
from service.errors import GatewayError
from service.exposure import require_safe_address
from service.gateway import Gateway
from service.heartbeat import watched
from service.keys import KeysFile
from service.last_resort import end_process, end_process_in
from service.loading import load_engine
from service.metrics import Metrics
from service.open_files import allow_connections
from service.protocol import ConnectionLimits, GuardedProtocol
from service.secret_file import read_secret
from service.settings import Settings

log = structlog.get_logger()

MAX_HEAD_BYTES = 64 * 1024
ENDING_SECONDS = 10.0
"""For the end of a process whose engine is dead, after it has drained."""
KEEP_ALIVE_SECONDS = 75
"""Longer than a load balancer keeps an idle connection, which is 60 s for most, or it would send into a closed one."""


class Hangup:
    """Remembers that SIGHUP came before there was an app to reload, instead of ending the process as it would else."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        """Called by the interpreter; takes no lock that the interrupted code could hold."""
        self.came = True


class Server(uvicorn.Server):
    """Drains before it stops: on the first signal new queries are refused, and those accepted are still answered.

    Args:
        settings: of the service.
        engine: what answers at first.
        metrics: those that `engine` counts in.
        load: makes the engine of a reload.
        hangup: whether a reload was asked for while the engine was loaded.
        on_dead: called when the engine is beyond recovery, and the end begins.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        metrics: Metrics,
        load: Callable[[], Engine] | None = None,
        hangup: Hangup | None = None,
        on_dead: Callable[[], None] = lambda: None,
    ) -> None:
        self.dead = False
        self._hangup = hangup
        self._on_dead = on_dead
        self._state: State | None = None
        self._reloads: set[asyncio.Task[None]] = set()
        app = create_app(settings, engine=engine, load=load, metrics=metrics, on_open=self._opened, on_dead=self._died)
        super().__init__(_config(app, settings, metrics))

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn's `run`."""
        async with watched(partial(end_process, _say_where_it_hangs)):
            await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by uvicorn on SIGINT and SIGTERM."""
        if self._state:
            self._state["gateway"].drain_soon()
        super().handle_exit(sig, frame)

    def reload(self) -> None:
        """Called on SIGHUP: reads the keys again, and begins to load the bundle again, once it is loaded at all."""
        if self._state:
            if keys := self._state["keys"]:
                keys.reload()
            reload = asyncio.create_task(self._reload_bundle(self._state["gateway"]))
            self._reloads.add(reload)
            reload.add_done_callback(self._reloads.discard)

    async def _reload_bundle(self, gateway: Gateway) -> None:
        await gateway.readiness.loaded()
        try:
            await gateway.reload()
        except GatewayError as error:
            log.warning("reload_refused", reason=str(error))

    def _opened(self, state: State) -> None:
        self._state = state
        if threading.current_thread() is threading.main_thread():  # no other thread may handle signals
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)
        if self._hangup and self._hangup.came:
            self.reload()

    def _died(self) -> None:
        self.dead = True
        self.should_exit = True
        self._on_dead()


def run(settings: Settings) -> int:
    """Serves until it is told to stop; gives the exit status.

    Raises:
        service.exposure.ExposedError: the address is not loopback, and neither a key nor `insecure` is configured.
        models.bundle.BundleError: the bundle cannot be served.
        service.keys.KeysFileError: the keys cannot be read.
        models.device.PlacementError: the device does not exist, or cannot compute in the precision.
        service.secret_file.SecretError: a secret cannot be read.
    """
    hangup = Hangup()
    signal.signal(signal.SIGHUP, hangup)
    gc.freeze()  # what was imported stays, and takes the collector 0.1 s or more each time it goes through it
    require_safe_address(settings)
    allow_connections(settings.max_connections)
    if settings.keys_file:
        KeysFile.read(settings.keys_file)
    if settings.redis_password_file:
        read_secret(settings.redis_password_file)
    metrics = Metrics()
    engine = load_engine(settings, metrics)
    log.info("bundle_read", bundle=engine.manifest.name, version=engine.manifest.version, device=engine.device)
    # What held a batch may hold the end, too: memory is not given back before the device is done.
    end_soon = partial(end_process_in, settings.drain_timeout_ms / 1000 + ENDING_SECONDS, _say_what_holds_the_end)
    server = Server(settings, engine, metrics, hangup=hangup, on_dead=end_soon)
    server.run()
    return int(server.dead or not server.started)


def _say_where_it_hangs(stack: str) -> None:
    log.error("event_loop_hangs", stack=stack)


def _say_what_holds_the_end(stack: str) -> None:
    log.error("end_hangs", stack=stack)


def _config(app: FastAPI, settings: Settings, metrics: Metrics) -> uvicorn.Config:
    limits = ConnectionLimits(
        connections=settings.max_connections,
        head_seconds=settings.head_timeout_ms / 1000,
        head_bytes=MAX_HEAD_BYTES,
        metrics=metrics,
    )
    return uvicorn.Config(
        app,
        http=partial(GuardedProtocol, limits=limits),  # type: ignore[arg-type]  # it is only called
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, settings.drain_timeout_ms // 1000),
    )
