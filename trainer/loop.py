"""The training loop: steps, checkpoints and reports; what a step is, a `Task` knows."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from math import isfinite
from time import monotonic
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor

from trainer.checkpoint import Checkpoint, State
from trainer.errors import CheckpointError, DivergedError, FirstProcessError
from trainer.history import Session

Metrics = Mapping[str, float]
Report = Callable[[int, Metrics], None]
"""Told the number of steps done and the mean metrics since it was last told; none where only the step is news."""
REPORT_EVERY = 10
"""Steps between two looks at the losses, where no checkpoint is due: a look waits for the device."""


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
            CheckpointError: the checkpoint is of another training, does not fit the task, or cannot be written.
            FirstProcessError: this is not the first process, and that one cannot go on.
        """
        state = checkpoint.read()
        if state:
            _restore(task, state, checkpoint)
        state = state or State(0, {})
        if state.steps_done == task.steps:
            return
        record = _Record(self, task, checkpoint, state)
        losses = _Losses(self.fabric)
        with ExitStack() as stack:
            self._first(partial(record.open, stack))
            for done in range(state.steps_done + 1, task.steps + 1):
                losses.add(task.step(done - 1))
                full = losses.steps >= REPORT_EVERY
                due = self._first(partial(record.pass_by, done, full))
                if due or full:
                    self._first(partial(record.look, done, losses.means(task, done), due))
            self._first(stack.close)

    def _first(self, work: Callable[[], bool | None]) -> bool:
        """What the first process answers, in all of them.

        Were its failure its own, the others would wait for it in the next collective, for as long as that allows.
        """
        answer, failure = False, None
        if self.fabric.is_global_zero:
            try:
                answer = bool(work())
            except Exception as error:  # noqa: BLE001 - raised below, once the others know
                failure = error
        answer, failed = self.fabric.broadcast((answer, failure is not None))
        if failure:
            raise failure
        if failed:
            raise FirstProcessError("the first process could not go on, and says why")
        return answer


class _Record:
    """What the first process alone does for a training: tells of it, and writes its checkpoints."""

    def __init__(self, loop: Loop, task: Task, checkpoint: Checkpoint, state: State) -> None:
        self.loop = loop
        self.task = task
        self.checkpoint = checkpoint
        self.state = state
        self.session = Session.begin(loop.fabric, state.steps_done, loop.clock)
        self.reports: list[Report] = []
        self.saved = loop.clock()

    def open(self, stack: ExitStack) -> None:
        """Begins to tell; ends with `stack`."""
        name, steps, done = self.task.name, self.task.steps, self.state.steps_done
        self.reports.extend(stack.enter_context(one.watch(name, steps, done)) for one in self.loop.watchers)

    def pass_by(self, done: int, full: bool) -> bool:
        """Tells whether a checkpoint is due; where nobody looks at the losses either, the step alone is news."""
        due = done == self.task.steps or self.loop.clock() - self.saved >= self.loop.checkpoint_seconds
        if not (due or full):
            self._tell(done, {})
        return due

    def look(self, done: int, metrics: Metrics, due: bool) -> None:
        """Tells the mean metrics; writes a checkpoint if it is due."""
        self._tell(done, metrics)
        if due:
            history = [*self.state.history, self.session.entry(done)]
            self.checkpoint.write(State(done, _finite_parts(self.task, done), history))
            self.saved = self.loop.clock()

    def _tell(self, done: int, metrics: Metrics) -> None:
        for report in self.reports:
            report(done, metrics)


class _Losses:
    """The sums, on the device, of what the steps gave since the last look."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.totals: dict[str, Tensor] = {}
        self.steps = 0

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Adds one step."""
        for name, value in metrics.items():
            self.totals[name] = self.totals[name] + value if self.steps else value
        self.steps += 1

    def means(self, task: Task, done: int) -> Metrics:
        """The means over the steps and all processes; begins anew.

        Raises:
            DivergedError: one is not a number, in all processes.
        """
        values = self.fabric.all_reduce(torch.stack(list(self.totals.values())).float() / self.steps, reduce_op="mean")
        assert isinstance(values, Tensor)
        means = dict(zip(self.totals, values.tolist(), strict=True))
        for name, mean in means.items():
            if not isfinite(mean):
                raise _diverged(task, done, f"{name} is {mean}")
        self.steps = 0
        return means


def _restore(task: Task, state: State, checkpoint: Checkpoint) -> None:
    """Puts everything back that a step changes."""
    parts = task.parts()
    if parts.keys() != state.parts.keys():
        told = f"it holds {', '.join(state.parts) or 'nothing'}, not {', '.join(parts)}"
        raise CheckpointError(f"{checkpoint.path}: not of {task.name}: {told}; remove it to train anew")
    for name, part in parts.items():
        try:
            part.load_state_dict(state.parts[name])
        except Exception as error:  # each kind of part raises what it likes
            told = " ".join(str(error).split())
            raise CheckpointError(
                f"{checkpoint.path}: its {name} is not of {task.name}: {told}; remove it to train anew"
            ) from error


def _finite_parts(task: Task, done: int) -> dict[str, dict[str, Any]]:
    parts = {name: part.state_dict() for name, part in task.parts().items()}
    for name, tensor in _tensors(parts):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise _diverged(task, done, f"{name} is not finite")
    return parts


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
