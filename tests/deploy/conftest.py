"""What is deployed: the files of this repository, read as the tools that apply them read them."""

import copy
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def kernel_cache(root: Path) -> str:
    """The folder of the gateway's image that Triton keeps in, and loads from, what it compiled."""
    (folder,) = re.findall(r"\bTRITON_CACHE_DIR=(\S+)", (root / "Dockerfile").read_text())
    assert isinstance(folder, str)
    return folder


@pytest.fixture(scope="session")
def compose() -> Callable[..., dict[str, Any]]:
    """What docker-compose makes of some files, in an environment with nothing of ours but what is given.

    It takes a second each time, so what it made of the same ones before is kept.
    """
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed")

    @functools.cache
    def resolved(files: tuple[str, ...], environment: frozenset[tuple[str, str]]) -> dict[str, Any]:
        flags = [word for file in files for word in ("--file", str(ROOT / file))]
        command = [program, "--project-name", "purigate", "--project-directory", str(ROOT), *flags, "config"]
        clean = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **dict(environment)}
        done = subprocess.run(command, capture_output=True, text=True, env=clean, check=False)
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = yaml.safe_load(done.stdout)
        for service in result["services"].values():  # what is extended is printed in another order
            service["volumes"] = sorted(service.get("volumes", []))
            service["networks"] = {name: one or {} for name, one in service.get("networks", {}).items()}
        return result

    def config(*files: str, **environment: str) -> dict[str, Any]:
        return copy.deepcopy(resolved(files, frozenset(environment.items())))

    return config
