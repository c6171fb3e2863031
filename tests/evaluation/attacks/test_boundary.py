"""The steps of the boundary attack where the target is random."""

from itertools import cycle

import pytest
import torch
from torch import Tensor

from evaluation.attacks import boundary
from evaluation.attacks.boundary import WINDOW, Boundary, _Walk
from evaluation.ball import Ball
from evaluation.images import Sample
from evaluation.oracle import Oracle
from evaluation.trial import Stopping, Trial
from tests.evaluation.conftest import LinearTarget, MakeTrial


@pytest.mark.parametrize(("second", "grows"), [(False, False), (True, True)])
def test_the_step_follows_what_is_kept_and_not_what_was_misread_once(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch, second: bool, grows: bool
) -> None:
    answers = cycle([True, second])
    monkeypatch.setattr(boundary, "_misread", lambda _trial, rows, _images: torch.full((len(rows),), next(answers)))
    trial = make_trial(LinearTarget(flips=0.1), Ball("l2", 1e-4), 1000)
    attack, current = Boundary(), torch.rand(trial.images.shape, generator=torch.Generator().manual_seed(0))
    walk, before = _Walk(attack, len(current), doubtful=True), current.clone()

    for _ in range(WINDOW):
        attack._move(trial, trial.active(), current, walk, torch.Generator().manual_seed(1))

    factor = attack.adaptation if grows else 1 / attack.adaptation
    torch.testing.assert_close(walk.source, torch.full((len(current),), attack.source_step * factor))
    assert torch.equal(before, current) != grows


class PaidForOpenImages(Oracle):
    """Refuses queries about images that the attack is done with."""

    trial: Trial

    def labels(self, rows: Tensor, candidates: Tensor) -> Tensor:
        assert not self.trial.finished[rows].any()
        return super().labels(rows, candidates)


@pytest.mark.parametrize("stopping", Stopping)
@pytest.mark.parametrize("flips", [0.1, 0.5])
def test_no_query_is_asked_that_the_budget_or_the_rules_do_not_allow(
    sample: Sample, stopping: Stopping, flips: float
) -> None:
    for budget in range(40, 60):
        oracle = PaidForOpenImages(LinearTarget(flips), len(sample), budget)
        trial = Trial(oracle, sample.images, sample.labels, Ball("l2", 2.0), stopping)
        oracle.trial = trial

        Boundary().run(trial, torch.Generator().manual_seed(budget))

        assert (oracle.spent <= budget - trial.reserve).all()
