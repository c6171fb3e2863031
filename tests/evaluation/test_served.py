"""What a record says of the networks changes with those that answer, and with nothing else."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from evaluation.attacks import Square
from evaluation.jobs import Job
from evaluation.records import Cell
from evaluation.served import LocalServed
from models.bundle import Manifest, read_manifest
from models.bundle.writer import write_manifest, write_weights
from tests.conftest import CLASSIFIER, LABELS, PURIFIERS, untrained_purifier

WITHOUT_PURIFIERS = ("none", "spatial-smoothing", "bit-reduction", "jpeg", "random-noise")


def cell(folder: Path, defense: str, pool: tuple[str, ...] = ()) -> Cell:
    return LocalServed(folder, "cpu", "float32").cell(Job(defense, Square(), queries=10, pool=pool), seed=0)


@pytest.fixture
def another(bundle_folder: Path, tmp_path: Path) -> Path:
    """A copy of the toy bundle, to be changed."""
    return Path(shutil.copytree(bundle_folder, tmp_path / "another"))


def change(folder: Path, *, purifiers: Iterable[str] = (), classifier: bool = False, **manifest: object) -> None:
    """New weights for some of the networks, and other keys of the manifest."""
    told = read_manifest(folder)
    pool = tuple(
        entry.model_copy(
            update={"weights": write_weights(folder, entry.name, untrained_purifier(PURIFIERS[entry.name]))}
        )
        if entry.name in purifiers
        else entry
        for entry in told.pool.purifiers
    )
    served = told.classifier
    if classifier:
        weights = write_weights(folder, "classifier", CLASSIFIER.build(len(LABELS)))
        served = served.model_copy(update={"weights": weights})
    changes = {"pool": told.pool.model_copy(update={"purifiers": pool}), "classifier": served, **manifest}
    write_manifest(folder, Manifest.model_validate(told.model_copy(update=changes).model_dump()))


@pytest.mark.parametrize("defense", [*WITHOUT_PURIFIERS, "disco", "disco-ensemble", "puridefense"])
def test_another_version_with_the_same_networks_is_the_same_cell(
    bundle_folder: Path, another: Path, defense: str
) -> None:
    change(another, version="2", provenance={"accuracy": 0.5})

    assert cell(another, defense) == cell(bundle_folder, defense)


def test_new_purifiers_are_another_cell_for_the_defenses_that_have_them(bundle_folder: Path, another: Path) -> None:
    change(another, purifiers=PURIFIERS)

    for defense in WITHOUT_PURIFIERS:
        assert cell(another, defense) == cell(bundle_folder, defense)
    for defense in ("disco", "disco-ensemble", "puridefense"):
        assert cell(another, defense) != cell(bundle_folder, defense)


def test_a_purifier_that_is_not_in_the_pool_of_a_job_does_not_matter_to_it(bundle_folder: Path, another: Path) -> None:
    first, *others = PURIFIERS
    change(another, purifiers=others)

    assert cell(another, "puridefense", (first,)) == cell(bundle_folder, "puridefense", (first,))
    assert cell(another, "puridefense", tuple(others)) != cell(bundle_folder, "puridefense", tuple(others))


def test_another_classifier_is_another_cell_for_every_defense(bundle_folder: Path, another: Path) -> None:
    change(another, classifier=True)

    for defense in (*WITHOUT_PURIFIERS, "disco", "puridefense"):
        assert cell(another, defense) != cell(bundle_folder, defense)


def test_another_halo_is_another_cell_for_the_pool_alone(bundle_folder: Path, another: Path) -> None:
    change(another, pool=read_manifest(another).pool.model_copy(update={"halo": 1}))

    assert cell(another, "puridefense") != cell(bundle_folder, "puridefense")
    assert cell(another, "disco-ensemble") == cell(bundle_folder, "disco-ensemble")
