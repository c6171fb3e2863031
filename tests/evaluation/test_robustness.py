"""A campaign is resumable, repeatable, and its figures are asked outside of the budget."""

from pathlib import Path

import pytest
import torch

from evaluation.attacks import Null, Square
from evaluation.ball import Ball
from evaluation.errors import EvaluationError
from evaluation.images import Sample
from evaluation.records import Cell, merge
from evaluation.robustness import Campaign
from evaluation.target import Target
from evaluation.trial import Stopping, Trial
from tests.evaluation.conftest import LinearTarget
from tests.evaluation.test_records import SERVED

SQUARE = Cell(served=SERVED, attack=Square(), ball=Ball("linf", 0.02), queries=40, stopping=Stopping.CONFIRMED, seed=0)
CPU = torch.device("cpu")


def of_tree(sample: Sample, tree: str) -> Sample:
    return Sample(sample.images, sample.labels, sample.indices, tree)


class Runs:
    """Makes targets and notes the trials."""

    def __init__(self) -> None:
        self.targets: list[LinearTarget] = []
        self.trials: list[Trial] = []

    def make(self, generator: torch.Generator) -> Target:
        target = LinearTarget(0.1)
        target.generator = generator
        self.targets.append(target)
        return target


def campaign(runs: Runs, folder: Path, cell: Cell = SQUARE) -> Campaign:
    return Campaign(cell, "1", runs.make, CPU, folder, part=5)


def test_parts_that_have_a_record_are_not_attacked_again(tmp_path: Path, sample: Sample) -> None:
    first, second = Runs(), Runs()
    list(campaign(first, tmp_path).run(sample.part(0, 10), first.trials.append))
    records = list(campaign(second, tmp_path).run(sample, second.trials.append))

    assert [len(trial.images) for trial in first.trials] == [5, 5]
    assert [len(trial.images) for trial in second.trials] == [2]
    assert [one.index for one in merge(records)[SQUARE]] == list(range(12))


def test_a_record_of_other_images_is_not_taken_for_these(tmp_path: Path, sample: Sample) -> None:
    runs = Runs()
    list(campaign(runs, tmp_path).run(sample.part(0, 5), runs.trials.append))
    list(campaign(runs, tmp_path).run(sample.part(5, 10), runs.trials.append))

    assert len(runs.trials) == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_a_record_tells_the_tree_of_its_images(tmp_path: Path, sample: Sample) -> None:
    runs = Runs()
    records = list(campaign(runs, tmp_path).run(of_tree(sample, "a"), runs.trials.append))

    assert {one.tree_sha256 for one in records} == {"a"}


def test_a_record_of_the_same_images_in_another_tree_is_not_taken(tmp_path: Path, sample: Sample) -> None:
    runs = Runs()
    list(campaign(runs, tmp_path).run(of_tree(sample.part(0, 5), "a"), runs.trials.append))
    moved = Sample(sample.images[:5], sample.labels[:5], (1, 2, 3, 4, 5), "a")

    for other in (of_tree(sample.part(0, 5), "b"), moved):
        with pytest.raises(EvaluationError, match="in another tree"):
            list(campaign(runs, tmp_path).run(other, runs.trials.append))


def test_the_same_seed_gives_the_same_outcomes(tmp_path: Path, sample: Sample) -> None:
    outcomes = []
    for name in ("one", "two"):
        runs = Runs()
        outcomes.append(merge(campaign(runs, tmp_path / name).run(sample, runs.trials.append)))

    assert outcomes[0] == outcomes[1]


def test_every_image_is_judged_by_29_queries_and_its_clean_one_by_20(tmp_path: Path, sample: Sample) -> None:
    runs = Runs()
    (record,) = campaign(runs, tmp_path).run(sample.part(0, 5), runs.trials.append)

    spent = sum(outcome.spent for outcome in record.outcomes)
    assert runs.targets[0].asked == spent + 5 * (29 + 20)
    assert all(outcome.spent <= SQUARE.queries for outcome in record.outcomes)


def test_the_null_attack_hits_a_target_that_is_wrong_now_and_then_and_confirms_nothing(
    tmp_path: Path, sample: Sample
) -> None:
    runs = Runs()
    null = SQUARE.model_copy(update={"attack": Null(), "queries": 100, "stopping": Stopping.HIT})
    outcomes = merge(campaign(runs, tmp_path, null).run(sample, runs.trials.append))[null]

    assert all(outcome.first_hit for outcome in outcomes)
    assert not any(outcome.confirmed for outcome in outcomes)
    assert all(outcome.spent == outcome.first_hit for outcome in outcomes)
