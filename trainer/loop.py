"""The training loop: steps, checkpoints and reports; what a step is, a `Task` knows."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from math import isfinite
from time import monotonic
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor

from trainer.checkpoint import Checkpoint, State
from trainer.errors import DivergedError
from trainer.history import Session

Metrics = Mapping[str, float]
Report = Callable[[int, Metrics], None]
"""Told the number of steps done and the mean metrics since it was last told; none where only the step is news."""
REPORT_EVERY = 10
"""Steps between two looks at the losses: a look waits for the device."""


class Stateful(Protocol):
    """What a checkpoint keeps."""

    def state_dict(self) -> dict[str, Any]:
        """All that changes in training."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Puts it back."""


class Task(ABC):
    """Something that is trained by a number of steps, each of which depends on the state and its own number alone.

    Attributes:
        name: what it is called in reports and messages.
        steps: how many there are.
    """

    name: str
    steps: int

    @abstractmethod
    def step(self, number: int) -> dict[str, Tensor]:
        """Takes the step `number`, counted from 0; gives scalars on the device that tell how it went."""

    @abstractmethod
    def parts(self) -> dict[str, Stateful]:
        """Everything that a step changes, by name."""


class Watcher(Protocol):
    """Somebody who is told how a training goes on."""

    def watch(self, name: str, steps: int, done: int) -> AbstractContextManager[Report]:
        """Begins with a training of `steps` steps, of which some are `done`; ends with the context."""


@dataclass(frozen=True)
class Loop:
    """Trains tasks, in one process or in several.

    Attributes:
        fabric: launched.
        watchers: told how far it is, in the first process.
        checkpoint_seconds: how much work a process that dies may lose.
        clock: in seconds.
    """

    fabric: Fabric
    watchers: Sequence[Watcher] = ()
    checkpoint_seconds: float = 60.0
    clock: Callable[[], float] = monotonic

    def train(self, task: Task, checkpoint: Checkpoint) -> None:
        """Takes the steps that `checkpoint` has not done yet.

        Raises:
            DivergedError: a loss or a weight is no longer a number; nothing of that is in the checkpoint.
            CheckpointError: the checkpoint is of another training, or cannot be written.
        """
        state = checkpoint.read() or State(0, {})
        for name, part in task.parts().items():
            if name in state.parts:
                part.load_state_dict(state.parts[name])
        if state.steps_done == task.steps:
            return
        session = Session.begin(self.fabric, state.steps_done, self.clock)
        with ExitStack() as stack:
            reports = [stack.enter_context(one) for one in self._watch(task, state.steps_done)]
            saved = self.clock()
            for done, metrics in self._steps(task, state.steps_done):
                for report in reports:
                    report(done, metrics)
                due = done == task.steps or (metrics and self.clock() - saved >= self.checkpoint_seconds)
                if due and self.fabric.is_global_zero:
                    self._save(task, checkpoint, State(done, {}, [*state.history, session.entry(done)]))
                    saved = self.clock()
        self.fabric.barrier()

    def _watch(self, task: Task, done: int) -> Iterator[AbstractContextManager[Report]]:
        if self.fabric.is_global_zero:
            yield from (watcher.watch(task.name, task.steps, done) for watcher in self.watchers)

    def _steps(self, task: Task, done: int) -> Iterator[tuple[int, Metrics]]:
        """Takes the steps; gives, after each, its number and, now and then, the means since the last time."""
        totals: dict[str, Tensor] = {}
        since = 0
        for number in range(done, task.steps):
            for name, value in task.step(number).items():
                totals[name] = totals[name] + value if since else value
            since += 1
            if since < REPORT_EVERY and number + 1 < task.steps:
                yield number + 1, {}
                continue
            yield number + 1, self._means(task, number + 1, totals, since)
            since = 0

    def _means(self, task: Task, step: int, totals: dict[str, Tensor], count: int) -> Metrics:
        values = self.fabric.all_reduce(torch.stack(list(totals.values())).float() / count, reduce_op="mean")
        assert isinstance(values, Tensor)
        means = dict(zip(totals, values.tolist(), strict=True))
        for name, mean in means.items():
            if not isfinite(mean):
                raise _diverged(task, step, f"{name} is {mean}")
        return means

    def _save(self, task: Task, checkpoint: Checkpoint, state: State) -> None:
        parts = {name: part.state_dict() for name, part in task.parts().items()}
        for name, tensor in _tensors(parts):
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise _diverged(task, state.steps_done, f"{name} is not finite")
        checkpoint.write(State(state.steps_done, parts, state.history))


def _tensors(node: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(node, Tensor):
        yield name, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _tensors(value, f"{name}.{key}".lstrip("."))


def _diverged(task: Task, step: int, what: str) -> DivergedError:
    return DivergedError(
        f"{task.name}: {what} at step {step}; the last checkpoint is from before. Go on with --precision 32-true, or "
        "train anew in another --run folder with a lower peak_learning_rate"
    )
