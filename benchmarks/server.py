"""A real server process, started for a measurement and ended after it."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

START_SECONDS = 120
STOP_SECONDS = 30
POLL_SECONDS = 0.2
KIBIBYTES_PER_MEBIBYTE = 1024


@dataclass(frozen=True)
class RunningServer:
    """A server that is ready.

    Attributes:
        url: where it answers.
        pid: of its process.
        seconds_to_ready: from the start of the process until it was ready.
    """

    url: str
    pid: int
    seconds_to_ready: float

    def resident_mebibytes(self) -> float:
        """The memory that the process holds now; Linux only."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / KIBIBYTES_PER_MEBIBYTE

    def metrics(self) -> dict[str, float]:
        """Every sample of `/metrics`, by its name and labels as Prometheus writes them."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}


PURIGATE_SERVE = (str(Path(sys.executable).with_name("purigate")), "serve")


@contextmanager
def running_server(*flags: str, serve: Sequence[str] = PURIGATE_SERVE) -> Iterator[RunningServer]:
    """Runs `purigate serve`, or another command that takes its flags, on a free port of the loopback interface.

    Raises:
        RuntimeError: it ended, or was not ready in time.
    """
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [*serve, "--port", str(port), *flags]
    begin = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:  # noqa: S603 - our own command
        try:
            _wait_until_ready(url, process, begin + START_SECONDS)
            yield RunningServer(url, process.pid, time.monotonic() - begin)
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", deadline: float) -> None:
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(POLL_SECONDS)
    raise RuntimeError(f"the server was not ready; its exit status is {process.poll()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
