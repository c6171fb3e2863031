"""A checkpoint: all that a training needs to go on, in one file that is always whole and knows what it belongs to."""

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

from trainer.errors import CheckpointError, first_line

SHOWN_DIFFERENCES = 3
MISSING = "nothing"

Origin = Mapping[str, JsonValue]
"""What decides the weights of a training: recipe and images, as JSON."""


@dataclass(frozen=True)
class State:
    """A training between two steps.

    Attributes:
        steps_done: how many steps made it.
        parts: the `state_dict` of everything that changes with a step.
        history: who trained it: one entry for each time that the training was started.
    """

    steps_done: int
    parts: dict[str, dict[str, Any]]
    history: list[dict[str, JsonValue]] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """One file for one training.

    Attributes:
        path: of the file.
        origin: what decides the weights; a file of another origin is refused.
    """

    path: Path
    origin: Origin

    def read(self) -> State | None:
        """The last state that was written, on the CPU; none if there was none.

        Raises:
            CheckpointError: the file is damaged or of another origin.
        """
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            state, origin = State(content["steps_done"], content["parts"], content["history"]), content["origin"]
        except Exception as error:  # PyTorch's loader has no error type of its own
            raise CheckpointError(f"{self.path}: damaged ({first_line(error)}); remove it to train anew") from error
        changes = list(_differences("", origin, dict(self.origin)))
        if changes:
            told = "; ".join(changes[:SHOWN_DIFFERENCES])
            raise CheckpointError(f"{self.path} belongs to another training: {told}. Name another --run folder")
        return state

    def finished(self, steps: int) -> State:
        """The state after the last of `steps` steps.

        Raises:
            CheckpointError: it was not trained yet, or not to its end.
        """
        state = self.read()
        if state is None:
            raise CheckpointError(f"{self.path}: not trained yet")
        if state.steps_done != steps:
            raise CheckpointError(f"{self.path}: trained for {state.steps_done} of {steps} steps; finish that first")
        return state

    def write(self, state: State) -> None:
        """Puts `state` in the place of the last one; whenever the process dies, one of the two is there, whole.

        Raises:
            CheckpointError: the disk does not take it; the last one is still there.
        """
        content = io.BytesIO()
        whole = {"origin": dict(self.origin), "steps_done": state.steps_done}
        torch.save({**whole, "parts": state.parts, "history": state.history}, content)
        partial = self.path.with_name(f"{self.path.name}.partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            needed = f"{content.tell() / 2**20:.0f} MiB"
            last = "the checkpoint before it is whole" if self.path.exists() else "there is none before it"
            raise CheckpointError(f"{self.path}: {error.strerror} ({needed} needed); {last}") from error


def _differences(name: str, old: JsonValue, new: JsonValue) -> Iterator[str]:
    """Where two JSON values differ, as `classifier.seed was 0 and is 1`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(f"{name}.{key}".lstrip("."), old.get(key, MISSING), new.get(key, MISSING))
    elif old != new:
        yield f"{name} was {old} and is {new}"
