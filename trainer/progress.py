"""Tells a person, and TensorBoard, how a training goes on."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from trainer.loop import Metrics, Report

LINE_SECONDS = 30.0
"""Between two lines where no bar can be drawn, such as a log file."""


class ProgressBar:
    """A bar with losses and time left on a terminal; a line now and then where there is none.

    Args:
        console: where it is shown.
        clock: in seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = monotonic) -> None:
        self.console = console
        self.clock = clock

    @contextmanager
    def watch(self, name: str, steps: int, done: int) -> Iterator[Report]:
        """Shows one training."""
        if self.console.is_terminal:
            with self._bar() as bar:
                row = bar.add_task(name, total=steps, completed=done, metrics="")

                def advance(step: int, metrics: Metrics) -> None:
                    bar.update(row, completed=step)
                    if metrics:
                        bar.update(row, metrics=told(metrics))

                yield advance
        else:
            yield self._lines(name, steps, done)

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=self.console,
        )

    def _lines(self, name: str, steps: int, done: int) -> Report:
        began = last = self.clock()

        def advance(step: int, metrics: Metrics) -> None:
            nonlocal last
            now = self.clock()
            if metrics and (step == steps or now - last >= LINE_SECONDS):
                last = now
                left = (now - began) / (step - done) * (steps - step)
                self.console.print(
                    f"{name}: step {step} of {steps}, {left:.0f} s left, {told(metrics)}",
                    soft_wrap=True,
                    highlight=False,
                )

        return advance


class TensorBoard:
    """Writes the metrics of each training to a folder of its own, for `tensorboard --logdir`.

    Args:
        folder: that holds them all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def watch(self, name: str, steps: int, done: int) -> Iterator[Report]:  # noqa: ARG002 - steps: of the interface
        """Writes one training; what an interrupted one wrote after its last checkpoint is taken back."""
        with SummaryWriter(str(self.folder / name), purge_step=done + 1) as writer:

            def advance(step: int, metrics: Metrics) -> None:
                for metric, value in metrics.items():
                    writer.add_scalar(metric, value, step)

            yield advance


def told(metrics: Mapping[str, float]) -> str:
    """Metrics in one line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
