"""Shows a running attack: how much of its budget is spent, and how many images still stand."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from evaluation.robustness import Watch
from evaluation.trial import Trial


class Board:
    """What is shown; looked at a few times a second, while the attack runs.

    Args:
        title: of what runs.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.trial: Trial | None = None

    def watch(self, trial: Trial) -> None:
        """Shows this trial from now on."""
        self.trial = trial

    def __rich__(self) -> RenderableType:
        if self.trial is None:
            return Text(self.title)
        budget, spent, finished = self.trial.oracle.budget, self.trial.oracle.spent, self.trial.finished
        done = int(torch.where(finished, budget, spent).sum())
        survivors = int((self.trial.first_hits == 0).sum())
        line = f"{self.title}: {int(spent.sum())} queries, {survivors} of {len(spent)} images not hit"
        return Group(Text(line), ProgressBar(total=budget * len(spent), completed=done, width=60))


@contextmanager
def watched(title: str) -> Iterator[Watch]:
    """Shows trials on a terminal; elsewhere it shows nothing."""
    console = Console(stderr=True)
    board = Board(title)
    if not console.is_terminal:
        yield board.watch
        return
    with Live(get_renderable=lambda: board, console=console, refresh_per_second=2, transient=True):
        yield board.watch
