"""What a record says of the networks changes with those that answer, and with nothing else."""

import shutil
from pathlib import Path

import pytest

from evaluation.attacks import Square
from evaluation.jobs import Job
from evaluation.records import Cell
from evaluation.served import LocalServed
from models.bundle import read_manifest
from models.bundle.writer import write_weights
from models.purifier import Purifier
from tests.conftest import CLASSIFIER, LABELS, PURIFIERS, change_bundle, untrained_purifier

WITHOUT_PURIFIERS = ("none", "spatial-smoothing", "bit-reduction", "jpeg", "random-noise")


def cell(folder: Path, defense: str, pool: tuple[str, ...] = ()) -> Cell:
    return LocalServed(folder, "cpu", "float32").cell(Job(defense, Square(), queries=10, pool=pool), seed=0)


@pytest.fixture
def another(bundle_folder: Path, tmp_path: Path) -> Path:
    """A copy of the toy bundle, to be changed."""
    return Path(shutil.copytree(bundle_folder, tmp_path / "another"))


def others(*names: str) -> dict[str, Purifier]:
    """Purifiers of the same architectures with other weights."""
    return {name: untrained_purifier(PURIFIERS[name]) for name in names}


@pytest.mark.parametrize("defense", [*WITHOUT_PURIFIERS, "disco", "disco-ensemble", "puridefense"])
def test_another_version_with_the_same_networks_is_the_same_cell(
    bundle_folder: Path, another: Path, defense: str
) -> None:
    change_bundle(another, version="2", provenance={"accuracy": 0.5})

    assert cell(another, defense) == cell(bundle_folder, defense)


def test_new_purifiers_are_another_cell_for_the_defenses_that_have_them(bundle_folder: Path, another: Path) -> None:
    change_bundle(another, others(*PURIFIERS))

    for defense in WITHOUT_PURIFIERS:
        assert cell(another, defense) == cell(bundle_folder, defense)
    for defense in ("disco", "disco-ensemble", "puridefense"):
        assert cell(another, defense) != cell(bundle_folder, defense)


def test_a_purifier_that_is_not_in_the_pool_of_a_job_does_not_matter_to_it(bundle_folder: Path, another: Path) -> None:
    first, *rest = PURIFIERS
    change_bundle(another, others(*rest))

    assert cell(another, "puridefense", (first,)) == cell(bundle_folder, "puridefense", (first,))
    assert cell(another, "puridefense", tuple(rest)) != cell(bundle_folder, "puridefense", tuple(rest))


def test_another_classifier_is_another_cell_for_every_defense(bundle_folder: Path, another: Path) -> None:
    weights = write_weights(another, "classifier", CLASSIFIER.build(len(LABELS)))
    change_bundle(another, classifier=read_manifest(another).classifier.model_copy(update={"weights": weights}))

    for defense in (*WITHOUT_PURIFIERS, "disco", "puridefense"):
        assert cell(another, defense) != cell(bundle_folder, defense)


def test_another_halo_is_another_cell_for_the_pool_alone(bundle_folder: Path, another: Path) -> None:
    change_bundle(another, pool=read_manifest(another).pool.model_copy(update={"halo": 1}))

    assert cell(another, "puridefense") != cell(bundle_folder, "puridefense")
    assert cell(another, "disco-ensemble") == cell(bundle_folder, "disco-ensemble")
