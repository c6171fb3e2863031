"""NES: how long its steps are."""

import pytest
import torch

from evaluation.attacks.nes import SHORTEST, _Steps


def lengths(*margins: float) -> list[float]:
    """Of the step after each margin, in units of the first."""
    steps = _Steps(1.0, 3, torch.zeros(2))
    found = []
    for one in margins:
        steps.note(torch.tensor([1]), torch.tensor([one]))
        found.append(float(steps.lengths[1]))
    assert float(steps.lengths[0]) == 1
    return found


def test_a_step_is_halved_once_the_margin_has_risen_over_a_window() -> None:
    assert lengths(5, 4, 6, 7, 8, 9) == [1, 1, 0.5, 0.5, 0.5, 0.25]


def test_a_step_stays_while_the_margin_falls() -> None:
    assert lengths(9, 8, 8.5, 7, 7.5, 6) == [1] * 6


def test_no_step_is_shorter_than_a_share_of_the_first() -> None:
    assert lengths(*range(60))[-1] == pytest.approx(SHORTEST)
