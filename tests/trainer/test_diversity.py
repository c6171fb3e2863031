"""What is measured of a bundle's diversity, and that twins are named."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from models.bundle import Bundle, read_bundle
from models.purifier import Purifier
from trainer.accuracy import Accuracy
from trainer.adversary import Attack
from trainer.bundling import Data, DataSet, Measured, MeasuredSet
from trainer.cost import Cost
from trainer.diversity import Diversity, measure_diversity
from trainer.images import LabeledImages
from trainer.report import print_measured

CPU = torch.device("cpu")


@pytest.fixture
def bundle(bundle_folder: Path) -> Bundle:
    return read_bundle(bundle_folder)


@pytest.fixture
def clean() -> LabeledImages:
    images = torch.randint(30, 226, (6, 3, 32, 32), dtype=torch.uint8)
    return LabeledImages(images, torch.arange(6) % 4, ("airplane", "bird", "cat", "deer"))


@pytest.fixture
def attacked(clean: LabeledImages) -> LabeledImages:
    noise = torch.randint(-8, 9, clean.images.shape)
    return LabeledImages((clean.images + noise).to(torch.uint8), clean.labels, clean.classes)


def behind(bundle: Bundle, purifiers: dict[str, Purifier]) -> Bundle:
    return Bundle(bundle.manifest, bundle.classifier, purifiers)


def test_one_purifier_has_no_diversity(bundle: Bundle, clean: LabeledImages, attacked: LabeledImages) -> None:
    alone = behind(bundle, {"fgsm-edsr": bundle.purifiers["fgsm-edsr"]})

    assert measure_diversity(alone, clean, attacked, CPU, draws=2) is None


def test_a_pool_of_identical_purifiers_has_none_and_all_its_pairs_are_twins(
    bundle: Bundle, clean: LabeledImages, attacked: LabeledImages
) -> None:
    one = bundle.purifiers["fgsm-edsr"]

    found = measure_diversity(behind(bundle, {"a": one, "b": one, "c": one}), clean, attacked, CPU, draws=3)

    assert found
    assert (found.nu, found.distance, found.flip_rate) == (0, (0, 0), (0, 0))
    assert found.logit_variance == pytest.approx((0, 0), abs=1e-12)
    assert found.error_correlation == pytest.approx(1)
    assert found.twins == (("a", "b", 1.0), ("a", "c", 1.0), ("b", "c", 1.0))


def test_a_pool_of_different_purifiers_has_some(bundle: Bundle, clean: LabeledImages, attacked: LabeledImages) -> None:
    found = measure_diversity(bundle, clean, attacked, CPU, draws=4)

    assert found
    assert (found.images, found.draws, found.seed) == (6, 4, 0)
    assert found.nu >= found.distance[0] > 0
    assert min(*found.distance, *found.logit_variance) > 0
    assert found.error_correlation < 0.95


def test_only_those_are_twins_whose_errors_are_alike(
    bundle: Bundle, clean: LabeledImages, attacked: LabeledImages
) -> None:
    both = {**bundle.purifiers, "copy": bundle.purifiers["pgd-edsr"]}

    found = measure_diversity(behind(bundle, both), clean, attacked, CPU, draws=2)

    assert found
    assert ("pgd-edsr", "copy", 1.0) in found.twins
    assert len(found.twins) < 10


def test_the_seed_repeats_the_draws(bundle: Bundle, clean: LabeledImages, attacked: LabeledImages) -> None:
    first, again, other = (measure_diversity(bundle, clean, attacked, CPU, draws=2, seed=seed) for seed in (0, 0, 1))

    assert first == again
    assert first
    assert other
    assert first.logit_variance != other.logit_variance


@pytest.fixture
def measured() -> Measured:
    train = DataSet(images=32000, sha256="0", skipped=())
    test = MeasuredSet(images=8000, sha256="1", skipped=(), overlap=0)
    return Measured(
        data=Data(train=train, test=test),
        accuracy=Accuracy(
            images=8000,
            precision="bfloat16",
            classifier=0.945,
            purifiers={"fgsm-edsr": 0.94, "bim-rcan": 0.9},
            grids={1: (0.93, 0.001), 2: (0.935, 0.002)},
            attacked=(0.25, 0.75),
            attacked_images=1000,
            attacked_by="surrogate",
            attack=Attack(kind="pgd", epsilon=(8, 8), steps=(10, 10)),
            draws=5,
            seed=0,
        ),
        cost=Cost(classifier=1_000_000_000, purifiers={"fgsm-edsr": 2, "bim-rcan": 2}, windows=1.5, pool=400_000_000),
        diversity=Diversity(
            images=1000,
            nu=1.5,
            distance=(1.25, 2.25),
            logit_variance=(0.01, 0.02),
            flip_rate=(0.001, 0.1),
            error_correlation=0.5,
            twins=(("fgsm-edsr", "bim-rcan", 0.97),),
            draws=10,
            seed=0,
        ),
    )


def printed(measured: Measured) -> str:
    console = Console(soft_wrap=True, highlight=False)
    with console.capture() as capture:
        print_measured(console, measured)
    return capture.get()


@pytest.mark.parametrize(
    "line",
    [
        "on 8000 images, in bfloat16: classifier 94.50 %",
        "behind bim-rcan alone: 90.00 %",
        "behind the pool, grid 2x2: 93.50 +- 0.20 % over 5 draws",
        "on 1000 images, attacked (pgd) by way of the surrogate: undefended 25.00 %, behind the pool 75.00 %",
        "cost: classifier 1.000 GFLOP an image, pool 0.400 (40%)",
        "distance of purified images: 1.25 on clean, 2.25 on attacked images",
        "nu 1.5, correlation of errors 0.500",
    ],
)
def test_the_report_tells_what_the_manifest_holds(measured: Measured, line: str) -> None:
    assert line in printed(measured).splitlines()


def test_the_report_warns_of_twins_by_name(measured: Measured) -> None:
    assert "warning: fgsm-edsr and bim-rcan are twins: their errors correlate by 0.970, over 0.95" in printed(measured)


def test_the_report_of_one_purifier_has_no_diversity(measured: Measured) -> None:
    assert "nu" not in printed(measured.model_copy(update={"diversity": None}))


def test_the_report_names_the_classifier_where_that_was_attacked_itself(measured: Measured) -> None:
    accuracy = measured.accuracy.model_copy(update={"attacked_by": "classifier"})

    told = printed(measured.model_copy(update={"accuracy": accuracy}))
    assert "on 1000 images, attacked (pgd) by way of the classifier: undefended 25.00 %" in told


def test_the_report_warns_of_test_images_that_were_trained_on(measured: Measured) -> None:
    test = measured.data.test.model_copy(update={"overlap": 7})
    data = measured.data.model_copy(update={"test": test})
    warning = "warning: 7 of the 8000 test images are training images too; the figures are too good"

    assert warning in printed(measured.model_copy(update={"data": data})).splitlines()
    assert "training images too" not in printed(measured)
