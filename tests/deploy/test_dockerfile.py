"""The Dockerfile, as far as it can be judged without building it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

from service.settings import ENVIRONMENT_PREFIX, Settings

INSTRUCTION = re.compile(r"^([A-Z]+)\s+(.*)$")
INSTALLING = re.compile(r"apt-get update -qq +&& apt-get install ([^&]*) && rm -rf /var/lib/apt/lists/\*")
BUILD_TOOLS = re.compile(r"\b(gcc|g\+\+|build-essential|make|cmake|apt-get|apt)\b")


@dataclass
class Stage:
    """One stage: its base, and its instructions in order."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for instruction, value in self.instructions if instruction == name]

    def last(self, name: str) -> str:
        return self.all(name)[-1]


@pytest.fixture(scope="module")
def stages(root: Path) -> dict[str, Stage]:
    text = re.sub(r"\\\n\s*", " ", (root / "Dockerfile").read_text())
    found: dict[str, Stage] = {}
    current: Stage | None = None
    for line in text.splitlines():
        if match := INSTRUCTION.match(line.strip()):
            name, value = match.groups()
            if name == "FROM":
                base, _, stage = value.partition(" AS ")
                current = found[stage] = Stage(base)
            elif current:
                current.instructions.append((name, value))
    return found


def way(stages: dict[str, Stage], name: str) -> list[Stage]:
    """A stage and what it is built on, as far as it is ours: all that ends up in the image."""
    stage = stages[name]
    return [stage, *(way(stages, stage.base) if stage.base in stages else [])]


def test_the_linter_has_nothing_to_say(root: Path) -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert program
    done = subprocess.run([program, "Dockerfile"], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_default_target_is_the_gateway(stages: dict[str, Stage]) -> None:
    assert list(stages)[-1] == "gateway"


@pytest.mark.parametrize("target", ["gateway", "trainer"])
def test_it_runs_as_a_user_by_number_who_is_not_root(stages: dict[str, Stage], target: str) -> None:
    assert stages[target].last("USER") == "10001:10001"
    after = [name for name, _ in stages[target].instructions]
    assert "RUN" not in after[after.index("USER") :]


@pytest.mark.parametrize(("target", "compiler"), [("gateway", {"gcc", "libc6-dev"}), ("trainer", set())])
def test_nothing_that_builds_is_in_it_but_what_compiles_for_a_gpu(
    stages: dict[str, Stage], target: str, compiler: set[str]
) -> None:
    built_on = way(stages, target)
    assert built_on[-1].base == "${PYTHON_IMAGE}"
    assert "tools" not in [stage.base for stage in built_on]
    assert not [copy for stage in built_on for copy in stage.all("COPY") if "from=tools" in copy]
    runs = [run for stage in built_on for run in stage.all("RUN")]
    words = [word for run in runs for found in INSTALLING.findall(run) for word in shlex.split(found)]
    assert {word.partition("=")[0] for word in words if not word.startswith("-")} == compiler
    assert not [run for run in runs if BUILD_TOOLS.search(INSTALLING.sub("", run))]


def test_its_user_owns_the_folder_of_compiled_kernels(stages: dict[str, Stage]) -> None:
    """It is none of those that are in memory, from which no code can be loaded."""
    instructions = stages["gateway"].instructions
    names = [name for name, value in instructions if name == "RUN" or "TRITON_CACHE_DIR=/var/" in value]
    assert names == ["ENV", "RUN"]
    assert re.search(r'install -d -o purigate -g purigate -m 0750 "\$TRITON_CACHE_DIR"$', stages["gateway"].last("RUN"))
    assert re.search(r"useradd --uid 10001 [^&]* purigate ", stages["runtime"].last("RUN"))


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
def test_triton_keeps_what_it_compiled_where_the_image_says(tmp_path: Path) -> None:
    keep = "from triton.runtime.cache import get_cache_manager as manager; print(manager('ab').put(b'', 'kernel'))"
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path / "kernels"), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", keep], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "kernels")


def test_neither_trainer_nor_evaluation_is_in_the_gateway(stages: dict[str, Stage]) -> None:
    copied = " ".join(copy for stage in (*way(stages, "gateway"), stages["service"]) for copy in stage.all("COPY"))
    assert "service" in copied
    assert not re.search(r"\b(trainer|evaluation|training|tests|benchmarks)\b", copied)


@pytest.mark.parametrize("stage", ["service", "training"])
def test_commands_begin_with_the_interpreter_that_has_the_dependencies(stages: dict[str, Stage], stage: str) -> None:
    filled = re.search(r"--python (\S+)/bin/python", stages["dependencies"].last("RUN"))
    assert filled
    assert f"--python {filled.group(1)}/bin/python" in stages[stage].last("RUN")
    assert f"--from=dependencies {filled.group(1)} {filled.group(1)}" in " ".join(stages["runtime"].all("COPY"))


def test_the_base_can_be_chosen_and_is_slim_and_exact(root: Path) -> None:
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+$", (root / "Dockerfile").read_text(), re.MULTILINE)


def test_its_label_tells_the_version_of_the_package(stages: dict[str, Stage], root: Path) -> None:
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    assert stages["gateway"].all("ARG") == [f"VERSION={version}"]
    assert 'image.version="${VERSION}"' in stages["gateway"].last("LABEL")


def test_a_signal_reaches_the_process(stages: dict[str, Stage]) -> None:
    assert json.loads(stages["gateway"].last("ENTRYPOINT")) == ["purigate"]
    assert json.loads(stages["gateway"].last("CMD")) == ["serve"]
    assert stages["gateway"].last("STOPSIGNAL") == "SIGTERM"


def test_its_environment_is_one_of_settings(stages: dict[str, Stage]) -> None:
    environment = dict(re.findall(rf"{ENVIRONMENT_PREFIX}(\w+)=(\S+)", stages["gateway"].last("ENV")))
    settings = Settings(**{name.lower(): value for name, value in environment.items()})
    assert (settings.host, settings.port, settings.metrics_port) == ("0.0.0.0", 8000, 9100)
    assert not settings.insecure


class Ready(BaseHTTPRequestHandler):
    """Answers /readyz with the status of its server."""

    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/readyz" else 404)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def gateway() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Ready)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def health(stages: dict[str, Stage], port: int) -> int:
    command = json.loads(stages["gateway"].last("HEALTHCHECK").partition("CMD ")[2])
    assert command[0] == "python"
    environment = {"PURIGATE_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, *command[1:]], env=environment, capture_output=True, check=False)
    return done.returncode


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_asks_whether_it_is_ready(
    stages: dict[str, Stage], gateway: HTTPServer, status: int, healthy: bool
) -> None:
    gateway.status = status  # type: ignore[attr-defined]
    assert (health(stages, gateway.server_port) == 0) == healthy


def test_a_gateway_that_is_not_there_is_not_healthy(stages: dict[str, Stage], gateway: HTTPServer) -> None:
    port = gateway.server_port
    gateway.server_close()
    assert health(stages, port) != 0


def test_only_what_it_copies_can_come_into_the_build(stages: dict[str, Stage], root: Path) -> None:
    lines = (root / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        source
        for stage in stages.values()
        for copy in stage.all("COPY")
        if "--from" not in copy
        for source in copy.split()[:-1]
    }
    assert allowed == copied
