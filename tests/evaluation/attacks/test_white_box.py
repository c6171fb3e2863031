"""The attacks with gradients: APGD on the pool itself, and images carried over from another network."""

import shutil
from pathlib import Path

import pytest
import torch

from evaluation.attacks import APGD, Transfer
from evaluation.attacks.apgd import checkpoints
from evaluation.ball import Ball
from evaluation.criteria import margin
from evaluation.errors import EvaluationError
from evaluation.oracle import Oracle
from evaluation.recheck import CHECKS
from evaluation.target import LocalTarget
from evaluation.trial import Stopping, Trial
from models.bundle import Bundle, read_bundle, read_manifest
from models.bundle.writer import write_weights
from models.defenses import build_defense
from models.device import Placement
from tests.conftest import CLASSIFIER, LABELS, PURIFIERS, change_bundle, untrained_purifier
from tests.evaluation.conftest import LinearTarget, MakeTrial

BALL = Ball("linf", 0.05)


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path) -> Bundle:
    return read_bundle(bundle_folder)


def trial(bundle: Bundle, defense: str, ball: Ball = BALL, stopping: Stopping = Stopping.BUDGET) -> Trial:
    generator = torch.Generator().manual_seed(1)
    placement = Placement(torch.device("cpu"), "float32")
    target = LocalTarget(bundle.classifier, build_defense(defense, bundle), placement, generator)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    return Trial(Oracle(target, 4, 100), images, target.labels(images), ball, stopping)


def margins(one: Trial, images: torch.Tensor) -> torch.Tensor:
    scores = torch.stack([one.oracle.target.scores(images) for _ in range(20)], dim=1)
    return margin(scores, one.labels).mean(1)


@pytest.mark.parametrize("defense", ["none", "puridefense", "disco"])
def test_apgd_shrinks_the_margin_of_every_image_within_the_ball(bundle: Bundle, defense: str) -> None:
    one = trial(bundle, defense)

    adversarial = APGD(steps=10, draws=4).run(one, torch.Generator().manual_seed(3))

    assert BALL.contains(adversarial, one.images).all()
    assert (margins(one, adversarial) < margins(one, one.images)).all()


@pytest.mark.parametrize("kind", ["apgd", "transfer"])
def test_what_was_made_with_gradients_is_sent_until_it_is_misread(
    bundle: Bundle, bundle_folder: Path, kind: str
) -> None:
    """In a ball without a size an image may stand: then a random target is asked for the whole budget."""
    attack = APGD(steps=9, draws=1) if kind == "apgd" else Transfer(surrogate=bundle_folder, steps=9, draws=1)
    small, large, same = (
        trial(bundle, defense, ball)
        for defense, ball in (
            ("puridefense", Ball("linf", 1e-9)),
            ("puridefense", Ball("linf", 0.5)),
            ("none", Ball("linf", 0.5)),
        )
    )
    for one in (small, large, same):
        attack.run(one, torch.Generator().manual_seed(3))

    assert (small.first_hits == 0).any()
    assert (large.first_hits > 0).any()
    for one in (small, large):
        spent = torch.where(one.first_hits == 0, 100, one.first_hits.clamp_min(2))
        assert one.oracle.spent.tolist() == spent.tolist()
    assert same.oracle.spent.tolist() == [2] * 4


def test_what_hit_is_sent_no_more_once_it_was_asked_about_again(bundle: Bundle) -> None:
    one = trial(bundle, "puridefense", Ball("linf", 0.5), Stopping.CONFIRMED)

    APGD(steps=9, draws=1).run(one, torch.Generator().manual_seed(3))

    hit = one.first_hits > 0
    assert hit.any()
    assert (one.oracle.spent[hit] <= one.first_hits[hit].clamp_min(2) + 2 * CHECKS).all()


def test_more_steps_find_no_worse_images_on_a_deterministic_target(bundle: Bundle) -> None:
    few, many = (
        margins(one := trial(bundle, "none", Ball("linf", 0.01)), APGD(steps=steps).run(one, torch.Generator()))
        for steps in (1, 30)
    )

    assert (many <= few + 1e-5).all()


def test_apgd_cannot_attack_what_it_has_no_weights_of(make_trial: MakeTrial) -> None:
    with pytest.raises(EvaluationError, match="weights"):
        APGD().run(make_trial(LinearTarget(), BALL, 10), torch.Generator())


@pytest.mark.parametrize("defense", ["none", "puridefense"])
def test_transfer_from_the_same_network_is_as_good_as_its_gradient(
    bundle: Bundle, bundle_folder: Path, defense: str
) -> None:
    one = trial(bundle, "puridefense")
    transfer = Transfer.model_validate({"surrogate": bundle_folder, "defense": defense, "steps": 10, "draws": 4})

    adversarial = transfer.run(one, torch.Generator().manual_seed(3))

    assert BALL.contains(adversarial, one.images).all()
    assert (margins(one, adversarial) < margins(one, one.images)).all()


@pytest.mark.parametrize(("defense", "changes"), [("none", False), ("puridefense", True)])
def test_a_surrogate_trained_anew_is_another_attack_where_its_gradients_are_others(
    bundle_folder: Path, tmp_path: Path, defense: str, changes: bool
) -> None:
    folder = Path(shutil.copytree(bundle_folder, tmp_path / "surrogate"))
    transfer = Transfer.model_validate({"surrogate": folder, "defense": defense})
    before = transfer.resolved()
    change_bundle(folder, {name: untrained_purifier(config) for name, config in PURIFIERS.items()})

    assert before.surrogate_sha256
    assert (transfer.resolved() != before) == changes
    assert before.resolved() == before


def test_another_classifier_is_another_surrogate_and_is_not_taken_for_it(
    bundle: Bundle, bundle_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bundle_folder, tmp_path / "surrogate"))
    before = Transfer(surrogate=folder, steps=1).resolved()
    weights = write_weights(folder, "classifier", CLASSIFIER.build(len(LABELS)))
    change_bundle(folder, classifier=read_manifest(folder).classifier.model_copy(update={"weights": weights}))

    assert Transfer(surrogate=folder, steps=1).resolved() != before
    with pytest.raises(EvaluationError, match="not the networks"):
        before.run(trial(bundle, "none"), torch.Generator())


def test_checkpoints_are_those_of_the_paper() -> None:
    assert sorted(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
