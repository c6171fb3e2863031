"""From a classifier of one's own to a served bundle, by the commands of docs/training.md as they are written."""

import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import BaseModel
from torch import nn
from typer.testing import CliRunner

from trainer.cli import app
from trainer.recipe import Recipe, shipped_recipes

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SIDE = 64
FEW = (
    "pool.training.steps=2",
    "pool.training.adversarial=2",
    "pool.training.clean=2",
    "pool.training.guidance.images=2",
    "pool.training.noise.images=2",
    *(f"pool.training.purifiers.{name}.encoder.features=4" for name in ("edsr32", "edsr64", "rcan32", "rcan64")),
    *(f"pool.training.purifiers.{name}.decoder.hidden=[4]" for name in ("edsr32", "edsr64", "rcan32", "rcan64")),
)
SHORT = [word for setting in FEW for word in ("--set", setting)]
PATIENCE_SECONDS = 600
"""For a command that takes 80 s on two quiet cores without AVX-512, and several times as long on busy ones."""


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "docs" / "training.md").read_text()


def block(text: str, holding: str) -> str:
    """The code block that holds some words."""
    (found,) = [one for one in re.findall(r"```(?:python)?\n(.*?)```", text, re.DOTALL) if holding in one]
    assert isinstance(found, str)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    """Where a user stands who has images and has exported a classifier as the page says."""
    folder = tmp_path_factory.mktemp("own")
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / "images" / split / name).mkdir(parents=True)
            for index in range(4):
                pixels = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
                Image.fromarray(pixels).save(folder / "images" / split / name / f"{index}.png")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        network.append(nn.Linear(4, 2))
    export = block(text, "torch.export.save").replace('"mine.pt2"', repr(str(folder / "mine.pt2")))
    exec(compile(export, "training.md", "exec"), {"network": network})
    return folder


@contextmanager
def served(command: list[str], folder: Path) -> Iterator[str]:
    """Runs a `purigate serve` command on a free port until the context ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen([*command, "--port", str(port)], cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            assert any("ready" in line for line in process.stdout)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_SECONDS)


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_for_ones_own_classifier_end_in_an_answer(text: str, folder: Path) -> None:
    init, train, verify, serve, ask = map(shlex.split, block(text, "purigate-train init mine.toml").splitlines())
    for command in (init, train, verify, serve):
        command[0] = str(BIN / command[0])

    run(init, folder)
    assert "behind the pool, grid 2x2: " in run([*train, *SHORT], folder)
    run(verify, folder)
    with served(serve, folder) as url:
        body = folder / ask[ask.index("--data-binary") + 1].removeprefix("@")
        header, _, value = ask[ask.index("-H") + 1].partition(": ")
        path = ask[-1].partition("/")[2]
        answer = httpx.post(f"{url}/{path}", content=body.read_bytes(), headers={header: value})

    assert answer.status_code == 200
    assert answer.json()["label"] in ("cat", "dog")
    assert answer.json()["bundle"]["name"] == "mine"


@pytest.mark.parametrize("command", ["--set pool", "--output bundles/robust", "--output bundles/cifar10-at"])
def test_every_other_training_command_has_flags_that_exist_and_a_recipe_that_is_valid(text: str, command: str) -> None:
    words = shlex.split(block(text, f"cifar10-resnet18 {command}").replace("\\\n", " "))

    refused = CliRunner().invoke(app, [*words[1:], "--train", "nowhere"])

    assert refused.stderr == "error: nowhere: No such file or directory\n"


def test_the_page_tells_of_every_shipped_recipe(text: str) -> None:
    assert re.findall(r"^\| `([\w-]+)` \| .* \| .* \| .* \|$", text, re.MULTILINE) == list(shipped_recipes())


def keys(model: type[BaseModel]) -> Iterator[str]:
    """The names of all keys of a part of a recipe, and of the parts in it."""
    for name, field in model.model_fields.items():
        yield name
        for part in parts(field.annotation):
            yield from keys(part)


def parts(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from parts(inner)


def test_the_page_tells_of_every_key_of_a_recipe(text: str) -> None:
    told = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`[^`\n]+`", text))))

    assert set(keys(Recipe)) - told == set()
