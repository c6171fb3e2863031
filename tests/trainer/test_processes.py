"""The command as a process: killed and started again, or sharing its work with another, it gives the same weights."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from models.bundle import read_bundle, read_manifest
from trainer.cli import app

COMMAND = Path(sys.executable).with_name("purigate-train")
PATIENCE = 240.0
"""Seconds for what takes a few of them."""
POLL = 0.01
WELL_CONDITIONED = [
    option
    for name in ("classifier", "surrogate")
    for setting in ("batch_size=12", "phases=[{epochs=3, resolution=12}]", "peak_learning_rate=0.01")
    for option in ("--set", f"{name}.training.{setting}")
]
"""Batch norms over four values, as the toy recipe has them, multiply the rounding errors of every step."""
GUIDED = ["--set", "pool.training.guidance={weight=0.05, images=2}"]
NOISY = ["--set", "pool.training.noise={images=2, epsilon=[4, 12]}"]
TRAININGS = ("classifier", "surrogate", "pool-fgsm", "pool-pgd")


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def arguments(
    tmp_path: Path, recipe_file: Path, write_tree: Callable[[Path, int, int], Path]
) -> Callable[..., list[str]]:
    """What the command is given: everything of a run lies in a folder of its own."""
    train, test = write_tree(tmp_path / "train", 6, 0), write_tree(tmp_path / "test", 3, 1)

    def make(name: str, *more: str) -> list[str]:
        images = ["--train", str(train), "--test", str(test), "--recipe", str(recipe_file), "--device", "cpu"]
        return ["all", *images, "--run", str(tmp_path / name), "--output", str(tmp_path / f"{name}-bundle"), *more]

    return make


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}
    return subprocess.Popen(
        [str(COMMAND), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def started() -> Iterator[Callable[[list[str]], subprocess.Popen[str]]]:
    """Starts the command; whatever still runs of it at the end, children too, is killed."""
    processes: list[subprocess.Popen[str]] = []

    def begin(arguments: list[str]) -> subprocess.Popen[str]:
        processes.append(start(arguments))
        return processes[-1]

    yield begin
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(POLL)


def test_a_command_that_was_killed_and_is_given_again_makes_the_same_bundle(
    tmp_path: Path,
    arguments: Callable[..., list[str]],
    started: Callable[[list[str]], subprocess.Popen[str]],
) -> None:
    long = ["--set", "pool.training.steps=50"]
    assert CliRunner().invoke(app, arguments("plain", *long)).exit_code == 0

    process = started(arguments("killed", *long))
    wait_for(tmp_path / "killed" / "surrogate.ckpt", process)
    process.kill()
    assert process.wait(PATIENCE) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "pool-pgd.ckpt").exists()
    assert not (tmp_path / "killed-bundle").exists()
    again = CliRunner().invoke(app, arguments("killed", *long))

    assert again.exit_code == 0
    assert "classifier: step" not in again.output
    plain, killed = (read_manifest(tmp_path / f"{name}-bundle") for name in ("plain", "killed"))
    assert killed.classifier == plain.classifier
    assert killed.pool == plain.pool


def weights(path: Path) -> dict[str, Tensor]:
    parts = torch.load(path, weights_only=True)["parts"]
    found: dict[str, Tensor] = parts["network" if "network" in parts else "purifiers"]
    return found


def test_two_processes_make_the_weights_of_one(
    tmp_path: Path,
    arguments: Callable[..., list[str]],
    started: Callable[[list[str]], subprocess.Popen[str]],
) -> None:
    precise = ["--precision", "32-true", *WELL_CONDITIONED, *GUIDED, *NOISY]
    assert CliRunner().invoke(app, arguments("one", *precise)).exit_code == 0

    process = started(arguments("two", *precise, "--processes", "2"))
    told, _ = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0, told
    assert told.count("pgd: step 2 of 2") == 1
    for name in TRAININGS:
        one, two = (weights(tmp_path / run / f"{name}.ckpt") for run in ("one", "two"))
        assert one.keys() == two.keys()
        for key, tensor in one.items():
            assert torch.allclose(two[key], tensor, rtol=1e-4, atol=1e-5), f"{name} {key}"
    history = torch.load(tmp_path / "two" / "classifier.ckpt", weights_only=True)["history"]
    assert history[0]["processes"] == 2
    assert (
        read_bundle(tmp_path / "two-bundle").purifiers.keys() == read_bundle(tmp_path / "one-bundle").purifiers.keys()
    )


@pytest.mark.parametrize("full", ["classifier.ckpt", "pool-fgsm.ckpt"])
def test_where_the_first_of_two_processes_finds_the_disk_full_both_end_and_say_so_once(
    tmp_path: Path,
    arguments: Callable[..., list[str]],
    started: Callable[[list[str]], subprocess.Popen[str]],
    full: str,
) -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / f"{full}.partial").symlink_to("/dev/full")

    process = started(arguments("two", "--processes", "2"))
    told, _ = process.communicate(timeout=PATIENCE)  # the pipe is closed once no process holds it

    assert process.returncode == 1, told
    assert told.count(f"{full}: No space left on device") == 1
    assert "Traceback" not in told
    assert not (tmp_path / "two" / full).exists()
