"""Real servers on loopback sockets, with an engine that can be held and broken or with a small real one."""

import io
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import httpx
import numpy as np
import pytest
import structlog
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from models.bundle import Manifest, read_manifest
from models.preprocessing import Pixels
from service.engine import Engine, Prediction
from service.loading import load_engine
from service.metrics import Metrics
from service.server import Server
from service.settings import Settings

PATIENCE_SECONDS = 30
START_PATIENCE_SECONDS = 180
LOOPBACK = "127.0.0.1"
LISTENING = "Uvicorn running on http://"


def wait_until(condition: Callable[[], bool], patience: float = PATIENCE_SECONDS, every: float = 0.005) -> None:
    """Asks again and again, with pauses of so many seconds; `condition` has to come true while we have patience."""
    tired = threading.Event()
    timer = threading.Timer(patience, tired.set)
    timer.start()
    try:
        while not condition():
            assert not tired.wait(every), "it never came true"
    finally:
        timer.cancel()
        timer.join()


def sample_values(metrics: str, sample_name: str, labels: Mapping[str, str]) -> Iterator[float]:
    """The values of the samples of that name that have these labels, of what `/metrics` says."""
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == f"purigate_{sample_name}" and labels.items() <= sample.labels.items():
                yield float(sample.value)


class FakeEngine:
    """The score of the first class is the red of the first pixel; that of the second is the rest.

    Attributes:
        batches: what it was given so far.
        busy: set as soon as it has a batch.
        free: cleared, it holds whatever batch it has.
        warm: cleared, it holds its warm-up.
        fault: raised, if there is one.
    """

    purifiers: tuple[str, ...] = ("fake",)
    device: str = "fake"
    precision: str = "float32"
    workers = 1

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.classes = len(manifest.labels)
        self.batches: list[list[Pixels]] = []
        self.busy = threading.Event()
        self.free = threading.Event()
        self.free.set()
        self.warm = threading.Event()
        self.warm.set()
        self.fault: Exception | None = None

    def warm_up(self) -> None:
        assert self.warm.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        """Holds nothing."""

    def classify(self, images: Sequence[Pixels]) -> list[Prediction]:
        self.batches.append(list(images))
        self.busy.set()
        assert self.free.wait(PATIENCE_SECONDS)
        if self.fault:
            raise self.fault
        return [self._prediction(image) for image in images]

    def seen(self) -> list[int]:
        """The reds of all images so far."""
        return [int(image[0, 0, 0]) for batch in self.batches for image in batch]

    def _prediction(self, image: Pixels) -> Prediction:
        scores = np.zeros(self.classes, np.float32)
        scores[0] = image[0, 0, 0] / 255
        scores[1] = 1 - scores[0]
        return Prediction(scores)


class Service:
    """A server that runs in a thread, and a client of it.

    Attributes:
        engine: what it serves at first.
        next_engine: what it finds when it is told to reload.
    """

    def __init__(self, engine: Engine, settings: Settings, metrics: Metrics) -> None:
        self.engine = engine
        self.next_engine = engine
        self.server = Server(settings, engine, metrics, lambda: self.next_engine)
        self._socket = socket.create_server((LOOPBACK, 0))
        self.port: int = self._socket.getsockname()[1]
        self.client = httpx.Client(base_url=f"http://{LOOPBACK}:{self.port}", timeout=PATIENCE_SECONDS)
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self._socket]})

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: self.server.started or not self._thread.is_alive())
        assert self.server.started

    def stop(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()

    def post(self, content: bytes, **options: Any) -> httpx.Response:
        """Asks about one image, sent as the raw body."""
        headers = {"Content-Type": "image/png", **options.pop("headers", {})}
        return self.client.post("/classify", content=content, headers=headers, **options)

    def post_files(self, *contents: bytes, path: str = "/classify/batch") -> httpx.Response:
        """Asks about images, sent as the parts of a form."""
        return self.client.post(path, files=[("file", ("image", content)) for content in contents])

    def value(self, sample_name: str, **labels: str) -> float | None:
        """What `/metrics` says now."""
        return next(sample_values(self.client.get("/metrics").text, sample_name, labels), None)

    def wait_for_value(self, value: float, sample_name: str, **labels: str) -> None:
        wait_until(lambda: self.value(sample_name, **labels) == value)

    def wait_for_state(self, state: str) -> None:
        wait_until(lambda: self.client.get("/readyz").json() == {"status": state})


@contextmanager
def served(engine: Engine, settings: Settings, metrics: Metrics | None = None) -> Iterator[Service]:
    service = Service(engine, settings, metrics or Metrics())
    service.start()
    try:
        yield service
    finally:
        service.stop()


class Process:
    """A process that runs while tests look at it; whatever it writes is kept."""

    def __init__(self, *command: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PURIGATE_")}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment | {"OMP_NUM_THREADS": "1"},
        )
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._said = threading.Condition()
        self._silent = False
        assert self._process.stdout
        assert self._process.stderr
        self._readers = [
            threading.Thread(target=self._read, args=streams)
            for streams in ((self._process.stdout, self.stdout), (self._process.stderr, self.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self._said:
                    lines.append(line.rstrip("\n"))
                    self._said.notify_all()
        with self._said:
            self._silent = True
            self._said.notify_all()

    def wait_for_line(self, text: str) -> str:
        """The first line on standard output that holds `text`."""

        def line() -> str | None:
            return next((one for one in self.stdout if text in one), None)

        with self._said:
            self._said.wait_for(lambda: self._silent or line(), START_PATIENCE_SECONDS)
            found = line()
        assert found, "\n".join(self.stderr)
        return found

    def wait_for_port(self) -> int:
        event = json.loads(self.wait_for_line(LISTENING))["event"]
        return int(event.removeprefix(LISTENING).split()[0].rpartition(":")[2])

    def wait_for_answer(self, port: int, path: str = "/readyz") -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_until(lambda: client.get(path).status_code == 200, START_PATIENCE_SECONDS, every=0.05)

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        self._process.send_signal(sig)

    def ignores(self, sig: signal.Signals) -> bool:
        """Whether the signal would not even be delivered; Linux tells."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:"))
        return bool(int(mask, 16) >> (sig - 1) & 1)

    def wait(self) -> int:
        """Waits until it ends; gives its exit status."""
        status = self._process.wait(START_PATIENCE_SECONDS)
        for reader in self._readers:
            reader.join()
        return status

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.wait()
        assert self._process.stdin
        self._process.stdin.close()

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout if line != "busy"]


class Launch(Protocol):
    """Starts a process; it is ended after the tests of its module."""

    def __call__(self, *command: str | Path) -> Process: ...


class Serve(Protocol):
    """Starts a server; it is stopped when the test ends."""

    def __call__(self, engine: Engine, *, wait: bool = True, **settings: Any) -> Service: ...


class AssertProblem(Protocol):
    """Checks that an answer is a problem as RFC 9457 and DESIGN.md have it."""

    def __call__(self, response: httpx.Response, status: int, slug: str) -> None: ...


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> Iterator[None]:
    """Long tracebacks are meant for a terminal; test_process.py looks at what a deployment writes."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture(scope="session")
def manifest(bundle_folder: Path) -> Manifest:
    return read_manifest(bundle_folder)


@pytest.fixture
def engine(manifest: Manifest) -> FakeEngine:
    return FakeEngine(manifest)


@pytest.fixture
def serve(engine: FakeEngine) -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(engine: Engine, *, wait: bool = True, **settings: Any) -> Service:
            service = stack.enter_context(served(engine, Settings(**settings)))
            if wait:
                service.wait_for_state("ready")
            return service

        yield start
        engine.fault = None
        engine.free.set()
        engine.warm.set()


@pytest.fixture(scope="module")
def launch() -> Iterator[Launch]:
    with ExitStack() as stack:

        def start(*command: str | Path) -> Process:
            process = Process(*map(str, command))
            stack.callback(process.close)
            return process

        yield start


@pytest.fixture(scope="session")
def service(manifest: Manifest) -> Iterator[Service]:
    """A server with default settings and a fake engine, for requests that change nothing."""
    with served(FakeEngine(manifest), Settings()) as service:
        service.wait_for_state("ready")
        yield service


@pytest.fixture(scope="session")
def real_service(bundle_folder: Path) -> Iterator[Service]:
    """A server of the toy bundle: real purifiers, a real classifier, real randomness."""
    settings = Settings(bundle=bundle_folder, device="cpu", precision="float32")
    metrics = Metrics()
    with served(load_engine(settings, metrics), settings, metrics) as service:
        service.wait_for_state("ready")
        yield service


@pytest.fixture(scope="session")
def png() -> Callable[[int], bytes]:
    """Makes an image of the target size, all of one red."""

    def make(red: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), (red, 0, 0)).save(buffer, "PNG")
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Waits until something comes true."""
    return wait_until


@pytest.fixture(scope="session")
def assert_problem() -> AssertProblem:
    def check(response: httpx.Response, status: int, slug: str) -> None:
        assert (response.status_code, response.headers["Content-Type"]) == (status, "application/problem+json")
        problem = response.json()
        assert list(problem) == ["type", "title", "status", "detail", "request_id"]
        assert (problem["type"], problem["status"]) == (f"urn:purigate:problem:{slug}", status)
        assert problem["title"]
        assert problem["detail"]
        assert problem["request_id"] == response.headers["X-Request-ID"]

    return check
