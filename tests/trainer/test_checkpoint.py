"""A checkpoint is always whole, knows what it belongs to, and says what is wrong with it."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.checkpoint import Checkpoint, State
from trainer.errors import CheckpointError

ORIGIN: dict[str, Any] = {"images": "abc", "classifier": {"seed": 0, "architecture": {"kind": "resnet", "width": 4}}}


def state(steps: int = 3) -> State:
    parts: dict[str, dict[str, Any]] = {
        "network": {"weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(7)},
        "optimizer": {"state": {0: {"momentum": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]},
    }
    return State(steps, parts, [{"begun": "2024-01-01T00:00:00+00:00", "steps": [0, steps], "commit": None}])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tmp_path / "run" / "classifier.ckpt", ORIGIN)


def test_what_was_never_written_is_not_there(checkpoint: Checkpoint) -> None:
    assert checkpoint.read() is None


def test_what_was_written_is_read_back(checkpoint: Checkpoint) -> None:
    checkpoint.write(state())

    read = checkpoint.read()
    assert read
    assert (read.steps_done, read.history) == (3, state().history)
    assert torch.equal(read.parts["network"]["weight"], state().parts["network"]["weight"])
    assert read.parts["optimizer"]["param_groups"] == state().parts["optimizer"]["param_groups"]


def test_the_last_state_takes_the_place_of_the_one_before_and_leaves_nothing_beside_it(checkpoint: Checkpoint) -> None:
    checkpoint.write(state(3))
    checkpoint.write(state(5))

    read = checkpoint.read()
    assert read
    assert read.steps_done == 5
    assert [path.name for path in checkpoint.path.parent.iterdir()] == ["classifier.ckpt"]


def test_what_a_process_that_died_while_writing_left_is_not_taken_for_a_checkpoint(checkpoint: Checkpoint) -> None:
    checkpoint.write(state(3))
    checkpoint.path.with_name("classifier.ckpt.partial").write_bytes(checkpoint.path.read_bytes()[:100])

    read = checkpoint.read()
    assert read
    assert read.steps_done == 3
    checkpoint.write(state(5))
    assert [path.name for path in checkpoint.path.parent.iterdir()] == ["classifier.ckpt"]


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        ({**ORIGIN, "images": "def"}, "images was abc and is def"),
        ({**ORIGIN, "classifier": {**ORIGIN["classifier"], "seed": 1}}, r"classifier\.seed was 0 and is 1"),
        (
            {**ORIGIN, "classifier": {"seed": 0, "architecture": {"kind": "resnet", "width": 8}}},
            r"classifier\.architecture\.width was 4 and is 8",
        ),
        ({**ORIGIN, "surrogate": {"seed": 1}}, r"surrogate was nothing and is \{'seed': 1\}"),
        ({"images": "abc"}, "classifier was .* and is nothing"),
    ],
)
def test_a_checkpoint_of_another_origin_is_refused_with_what_differs(
    checkpoint: Checkpoint, origin: dict[str, Any], told: str
) -> None:
    checkpoint.write(state())

    with pytest.raises(CheckpointError, match=rf"classifier\.ckpt belongs to another training: {told}\. Name another"):
        Checkpoint(checkpoint.path, origin).read()


def test_of_many_differences_three_are_told(checkpoint: Checkpoint) -> None:
    Checkpoint(checkpoint.path, dict.fromkeys("abcde", 0)).write(state())

    with pytest.raises(CheckpointError, match=r"a was 0 and is 1; b was 0 and is 1; c was 0 and is 1\. Name") as told:
        Checkpoint(checkpoint.path, dict.fromkeys("abcde", 1)).read()
    assert "d was" not in str(told.value)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def emptied(_: bytes) -> bytes:
    return b""


def overwritten(content: bytes) -> bytes:
    return bytes(len(content))


@pytest.mark.parametrize("damage", [cut, emptied, overwritten])
def test_a_damaged_checkpoint_is_told(checkpoint: Checkpoint, damage: Callable[[bytes], bytes]) -> None:
    checkpoint.write(state())
    checkpoint.path.write_bytes(damage(checkpoint.path.read_bytes()))

    with pytest.raises(CheckpointError, match=r"classifier\.ckpt: damaged \(.*; remove it to train anew"):
        checkpoint.read()


@pytest.mark.parametrize("content", [{"steps_done": 3}, [1, 2], 7], ids=["incomplete", "list", "number"])
def test_a_file_that_is_no_checkpoint_is_told(checkpoint: Checkpoint, content: object) -> None:
    checkpoint.path.parent.mkdir()
    torch.save(content, checkpoint.path)

    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.read()


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.mkdir, (self.path,)


def test_a_checkpoint_runs_no_code(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint.path.parent.mkdir()
    torch.save({"origin": Malicious(tmp_path / "pwned")}, checkpoint.path)

    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.read()
    assert not (tmp_path / "pwned").exists()


@pytest.fixture
def fill_the_disk(checkpoint: Checkpoint) -> Callable[[], None]:
    """Lets whatever is written next beside the checkpoint meet a full device, `/dev/full`."""
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("this system has no /dev/full")

    def fill() -> None:
        checkpoint.path.parent.mkdir(exist_ok=True)
        checkpoint.path.with_name("classifier.ckpt.partial").symlink_to(full)

    return fill


def test_a_full_disk_is_told_and_leaves_the_checkpoint_before_it(
    checkpoint: Checkpoint, fill_the_disk: Callable[[], None]
) -> None:
    checkpoint.write(state(3))
    fill_the_disk()

    with pytest.raises(CheckpointError, match=r"No space left on device \(\d+ MiB needed\); the .* before it is whole"):
        checkpoint.write(state(5))

    read = checkpoint.read()
    assert read
    assert read.steps_done == 3
    assert [path.name for path in checkpoint.path.parent.iterdir()] == ["classifier.ckpt"]


def test_a_disk_that_is_full_from_the_start_is_told(checkpoint: Checkpoint, fill_the_disk: Callable[[], None]) -> None:
    fill_the_disk()

    with pytest.raises(CheckpointError, match="there is none before it"):
        checkpoint.write(state(5))


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(CheckpointError, match=r"Not a directory|File exists") as told:
        Checkpoint(tmp_path / "file" / "classifier.ckpt", ORIGIN).write(state())
    assert isinstance(told.value.__cause__, OSError)
    assert told.value.__cause__.errno in (errno.ENOTDIR, errno.EEXIST)


def test_a_training_that_did_not_begin_is_not_finished(checkpoint: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match=r"classifier\.ckpt: not trained yet"):
        checkpoint.finished(5)


def test_a_training_that_was_interrupted_is_not_finished(checkpoint: Checkpoint) -> None:
    checkpoint.write(state(3))

    with pytest.raises(CheckpointError, match="trained for 3 of 5 steps; finish that first"):
        checkpoint.finished(5)


def test_a_training_that_came_to_its_end_is_finished(checkpoint: Checkpoint) -> None:
    checkpoint.write(state(5))

    assert checkpoint.finished(5).steps_done == 5
