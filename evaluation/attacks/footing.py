"""Whether the incumbent of a walk is still misread by a random target, and where the walk falls back to if not."""

import torch
from torch import Tensor

from evaluation.trial import Trial

CHECKS = 3
"""Answers of which most decide; two that agree save the third."""
RETREATS = (1 / 64, 1 / 16, 1 / 4, 1.0)
"""Shares of the way back to the last incumbent that was confirmed, which may be the start itself; the first are small,
for the boundary is near."""
DEEP_RETREATS = (1 / 256, 1 / 64, 1 / 16, 1 / 4, 1.0)
"""Shares of the way from there to the start."""


class Footing:
    """The last image of each walk that a random target has misread again.

    An attack that believes single answers ends at a place that was misread once, by luck, with rightly read ones all
    around. So a walk asks about its incumbent again now and then, and where most answers are right it goes back: on
    the way to the last image that was confirmed, then from there to its start, as far as it takes to be misread.

    Args:
        starts: `(N, 3, H, W)`.

    Attributes:
        firm: `(N, 3, H, W)`, the last confirmed ones.
    """

    def __init__(self, starts: Tensor) -> None:
        self._starts = starts.clone()
        self.firm = starts.clone()

    def regain(self, trial: Trial, rows: Tensor, current: Tensor) -> Tensor:
        """Asks again about images of `current` and moves back those that are read rightly.

        Returns:
            `(M,)` int64: those of the rows that were moved.
        """
        fallen = lost = self._lost(trial, rows, current)
        fell, firm = current.clone(), self.firm.clone()
        for share in RETREATS:
            current[lost] = torch.lerp(fell[lost], firm[lost], share)
            lost = self._lost(trial, lost, current)
        lost = lost[(firm[lost] != self._starts[lost]).flatten(1).any(1).cpu()]  # others are at their start already
        for share in DEEP_RETREATS:
            current[lost] = torch.lerp(firm[lost], self._starts[lost], share)
            lost = self._lost(trial, lost, current)
        self.firm[lost] = self._starts[lost]
        return fallen

    def end(self, trial: Trial, rows: Tensor, current: Tensor) -> Tensor:
        """Looks at images of `current` for the last time.

        Returns:
            `(N, 3, H, W)`: the last confirmed ones; those that came into the ball, as far away as it allows.
        """
        self.regain(trial, rows, current)
        return trial.ball.stretch(self.firm, trial.images)

    def _lost(self, trial: Trial, rows: Tensor, current: Tensor) -> Tensor:
        """Which of the rows are read rightly; notes the others as confirmed. Those without budget are neither."""
        rows = rows[trial.able(rows)]
        misread = mostly_misread(trial, rows, current[rows])
        held = rows[misread]
        self.firm[held] = current[held]
        return rows[~misread]


def mostly_misread(trial: Trial, rows: Tensor, images: Tensor) -> Tensor:
    """Whether most of three paid answers about each of `(R, 3, H, W)` images are wrong: `(R,)` bool, on the CPU.

    Where the budget ends before, those there are decide, and a tie is for the image.
    """
    wrong, asked = torch.zeros_like(rows), torch.zeros_like(rows)
    for _ in range(CHECKS):
        undecided = torch.maximum(wrong, asked - wrong) <= CHECKS // 2
        going = (undecided & trial.able(rows)).nonzero().flatten()
        if not len(going):
            break
        answers = trial.wrong(rows[going], images[going.to(images.device), None])[:, 0]
        wrong[going] += answers.cpu()
        asked[going] += 1
    return 2 * wrong >= asked
