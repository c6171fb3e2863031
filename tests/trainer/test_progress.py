"""A person sees how far a training is, on a terminal and without one, and TensorBoard keeps what it told."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from trainer.progress import ProgressBar, TensorBoard


class Clock:
    """Says what a test tells it to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


def test_on_a_terminal_a_bar_shows_the_steps_the_losses_and_the_time_left(output: io.StringIO) -> None:
    console = Console(file=output, force_terminal=True, width=160)

    with ProgressBar(console).watch("classifier", 40, 10) as told:
        told(20, {"loss": 1.25})
        told(25, {})

    shown = output.getvalue()
    assert "classifier" in shown
    assert "25/40" in shown
    assert "loss 1.25" in shown
    assert "0:00:" in shown


def test_without_a_terminal_a_line_is_told_every_half_minute_and_at_the_end(output: io.StringIO, clock: Clock) -> None:
    console = Console(file=output, force_terminal=False)

    with ProgressBar(console, clock).watch("pgd", 100, 20) as told:
        for step in range(30, 101, 10):
            clock.now += 20
            told(step, {"edsr/l1_levels": 2 + step / 100, "rcan/l1_levels": 0.5})

    assert output.getvalue().splitlines() == [
        "pgd: step 40 of 100, 120 s left, edsr/l1_levels 2.4, rcan/l1_levels 0.5",
        "pgd: step 60 of 100, 80 s left, edsr/l1_levels 2.6, rcan/l1_levels 0.5",
        "pgd: step 80 of 100, 40 s left, edsr/l1_levels 2.8, rcan/l1_levels 0.5",
        "pgd: step 100 of 100, 0 s left, edsr/l1_levels 3, rcan/l1_levels 0.5",
    ]


def test_a_step_without_metrics_is_not_worth_a_line(output: io.StringIO, clock: Clock) -> None:
    with ProgressBar(Console(file=output, force_terminal=False), clock).watch("pgd", 100, 0) as told:
        clock.now += 3600
        told(5, {})

    assert output.getvalue() == ""


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def test_tensorboard_keeps_the_metrics_of_each_training(tmp_path: Path) -> None:
    watcher = TensorBoard(tmp_path)
    for name, value in (("classifier", 1.0), ("pgd", 2.0)):
        with watcher.watch(name, 20, 0) as told:
            told(5, {})
            told(10, {"loss": value})
            told(20, {"loss": value / 2})

    assert scalars(tmp_path / "classifier", "loss") == [(10, 1.0), (20, 0.5)]
    assert scalars(tmp_path / "pgd", "loss") == [(10, 2.0), (20, 1.0)]


def test_what_an_interrupted_training_wrote_after_its_last_checkpoint_is_taken_back(tmp_path: Path) -> None:
    watcher = TensorBoard(tmp_path)
    with watcher.watch("pgd", 40, 0) as told:
        for step in (10, 20, 30):
            told(step, {"loss": 1.0})
    with watcher.watch("pgd", 40, 10) as told:
        for step in (20, 30, 40):
            told(step, {"loss": 2.0})

    assert [step for step, _ in scalars(tmp_path / "pgd", "loss")] == [10, 20, 30, 40]
    assert dict(scalars(tmp_path / "pgd", "loss")) == {10: 1.0, 20: 2.0, 30: 2.0, 40: 2.0}
