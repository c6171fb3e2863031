"""The adversarially trained bundle that the evaluation brings: whole, and the embedded one but for its classifier."""

from pathlib import Path

from evaluation.paper_table import ADVERSARIALLY_TRAINED
from models.bundle import read_bundle, read_manifest
from service.settings import embedded_bundle

FOLDER = Path(__file__).parents[2] / "evaluation" / "bundles" / "cifar10-at"


def test_it_is_whole_and_its_name_says_what_it_is() -> None:
    manifest = read_bundle(FOLDER).manifest

    assert manifest.name.endswith(ADVERSARIALLY_TRAINED)


def test_its_pool_is_the_embedded_one_and_its_classifier_is_not() -> None:
    own, embedded = read_manifest(FOLDER), read_manifest(embedded_bundle())

    assert own.pool == embedded.pool
    assert own.classifier.weights.sha256 != embedded.classifier.weights.sha256
