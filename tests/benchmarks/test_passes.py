"""The pass by the size of the pool, on a real engine."""

from pathlib import Path

import pytest

from benchmarks.passes import measure_passes, pool_devices, write_smaller
from benchmarks.ratios import figures
from models.bundle import read_bundle, read_manifest
from models.preprocessing import Preprocessing
from tests.conftest import change_bundle


def test_every_size_of_pool_is_measured_at_both_batches_beside_the_bare_classifier(bundle_folder: Path) -> None:
    passes = measure_passes(bundle_folder, "cpu", rounds=2)
    assert [(one.purifiers, one.batch) for one in passes] == [
        (size, batch) for size in (0, 1, 2, 4) for batch in (1, 32)
    ]
    for one in passes:
        assert one.device == "cpu"
        assert len(one.pass_ms) == len(one.whole_ms) == 2
        assert all(0 < part < whole for part, whole in zip(one.pass_ms, one.whole_ms, strict=True))


def test_a_pool_of_another_size_and_grid_on_other_images_is_measured(bundle_folder: Path, tmp_path: Path) -> None:
    three = tmp_path / "three"
    write_smaller(bundle_folder, three, ["fgsm-edsr", "fgsm-rcan", "pgd-rcan"])
    pool = read_manifest(three).pool.model_copy(update={"grid": 3, "halo": 0})
    change_bundle(three, pool=pool, preprocessing=Preprocessing(resize=56, height=50, width=56))
    passes = measure_passes(three, "cpu", rounds=1)
    assert [(one.purifiers, one.batch) for one in passes] == [
        (size, batch) for size in (0, 1, 2, 3) for batch in (1, 32)
    ]
    assert [one.name for one in figures({}, passes)] == [
        "pass of 3 purifiers over 1, batch 1, cpu",
        "pass of 3 purifiers over 1, batch 32, cpu",
    ]


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_passes_are_measured_on_the_device_that_is_named_alone(device: str) -> None:
    assert pool_devices(device) == (device,)


def test_a_smaller_bundle_has_the_chosen_purifiers_of_the_other(bundle_folder: Path, tmp_path: Path) -> None:
    write_smaller(bundle_folder, tmp_path / "smaller", ["fgsm-rcan", "pgd-edsr"])
    whole, smaller = read_bundle(bundle_folder), read_bundle(tmp_path / "smaller")
    assert list(smaller.purifiers) == ["fgsm-rcan", "pgd-edsr"]
    for name, purifier in smaller.purifiers.items():
        for key, value in purifier.state_dict().items():
            assert value.equal(whole.purifiers[name].state_dict()[key])
    assert len(read_bundle(bundle_folder).purifiers) == 4
