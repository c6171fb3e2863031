"""A real server process, started for a measurement and ended after it. Linux only: it reads /proc."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.termination import ending_on_sigterm

START_SECONDS = 300
STOP_SECONDS = 30
POLL_SECONDS = 0.05
KIBIBYTES_PER_MEBIBYTE = 1024
SIGNAL_SECONDS = 5
SIGNAL_POLL_SECONDS = 0.001
STATE_FIELD, SESSION_FIELD = 0, 3
"""Of `/proc/PID/stat` after the name, which is in brackets and may hold anything."""
STOPPED, ENDED = "T", "Z"

Ready = Callable[[httpx.Client], bool]


@dataclass(frozen=True)
class RunningServer:
    """A server that is ready, in a session of its own.

    Attributes:
        url: where it answers.
        pid: of the process that was started, and of its session.
        seconds_to_ready: from the start of the process until it was ready.
    """

    url: str
    pid: int
    seconds_to_ready: float

    def resident_mebibytes(self) -> float:
        """The memory that the first process holds now."""
        return _mebibytes(self.pid, "VmRSS")

    def peak_mebibytes(self) -> float:
        """The most memory that each process of the server held; what they share counts for each of them."""
        return peak_mebibytes(self.pid)

    def metrics(self) -> dict[str, float]:
        """Every sample of `/metrics`, by its name and labels as Prometheus writes them."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def sleep(self) -> None:
        """Stops every process of the server; it answers nobody and takes no time.

        Raises:
            RuntimeError: one of them does not stop.
        """
        _send(signal.SIGSTOP, self.pid)
        _wait_until(lambda: set(_states(self.pid).values()) <= {STOPPED})

    def wake(self) -> None:
        """Lets it go on."""
        _send(signal.SIGCONT, self.pid)


PURIGATE_SERVE = (str(Path(sys.executable).with_name("purigate")), "serve")


def says_it_is_ready(http: httpx.Client) -> bool:
    """Whether the gateway answers 200 at `/readyz`."""
    return http.get("/readyz").is_success


@contextmanager
def running_server(
    *flags: str,
    serve: Sequence[str] = PURIGATE_SERVE,
    ready: Ready = says_it_is_ready,
    environment: Mapping[str, str] | None = None,
) -> Iterator[RunningServer]:
    """Runs `purigate serve`, or another command that takes `--port`, on a free port of the loopback interface.

    Args:
        flags: of the command.
        serve: the command.
        ready: asks the server; a server that does not listen yet is not ready.
        environment: of the process; that of this process by default.

    Raises:
        RuntimeError: it ended, or was not ready in time.
    """
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [*serve, "--port", str(port), *flags]
    begin = time.monotonic()
    with running_process(command, environment) as process:
        _wait_until_ready(url, process, begin + START_SECONDS, ready)
        yield RunningServer(url, process.pid, time.monotonic() - begin)


@contextmanager
def running_process(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> "Iterator[subprocess.Popen[bytes]]":
    """A process in a session of its own; all of that session ends with the context, also where SIGTERM ends it.

    Raises:
        subprocess.TimeoutExpired: at the end; it did not end by itself when it was asked to, and was killed.
    """
    with ending_on_sigterm():
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, stdout=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        try:
            yield process
        finally:
            _stop(process)


def processes(session: int) -> list[int]:
    """The ids of the processes of a session."""
    return list(_states(session))


def peak_mebibytes(session: int) -> float:
    """The most memory that each process of a session held; what they share counts for each of them."""
    return sum(_mebibytes(pid, "VmHWM") for pid in processes(session))


def _states(session: int) -> dict[int, str]:
    """The state of each process of a session, by its id."""
    states = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[SESSION_FIELD]) == session and fields[STATE_FIELD] != ENDED:
                states[int(folder.name)] = fields[STATE_FIELD]
    return states


def _send(sig: signal.Signals, session: int) -> None:
    for pid in processes(session):
        with suppress(ProcessLookupError):
            os.kill(pid, sig)


def _wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SIGNAL_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeError("a process does not do what it was signaled")
        time.sleep(SIGNAL_POLL_SECONDS)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Asks the first process to end, and ends what is left of its session."""
    _send(signal.SIGCONT, process.pid)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    finally:
        _send(signal.SIGKILL, process.pid)
        process.wait()
        _wait_until(lambda: not processes(process.pid))


def _mebibytes(pid: int, field: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:")]
    return sum(map(int, sizes)) / KIBIBYTES_PER_MEBIBYTE  # none of a process that has ended


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", deadline: float, ready: Ready) -> None:
    with httpx.Client(base_url=url) as http:
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(httpx.TransportError):
                if ready(http):
                    return
            time.sleep(POLL_SECONDS)
    raise RuntimeError(f"{process.args!r} was not ready; its exit status is {process.poll()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
