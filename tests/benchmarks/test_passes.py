"""The pass by the size of the pool, on a real engine."""

from pathlib import Path

from benchmarks.passes import measure_passes, write_smaller
from models.bundle import read_bundle


def test_every_size_of_pool_is_measured_at_both_batches_beside_the_bare_classifier(bundle_folder: Path) -> None:
    passes = measure_passes(bundle_folder, "cpu", rounds=2)
    assert [(one.purifiers, one.batch) for one in passes] == [
        (size, batch) for size in (0, 1, 2, 4) for batch in (1, 32)
    ]
    for one in passes:
        assert one.device == "cpu"
        assert len(one.pass_ms) == len(one.whole_ms) == 2
        assert all(0 < part < whole for part, whole in zip(one.pass_ms, one.whole_ms, strict=True))


def test_a_smaller_bundle_has_the_chosen_purifiers_of_the_other(bundle_folder: Path, tmp_path: Path) -> None:
    write_smaller(bundle_folder, tmp_path / "smaller", ["fgsm-rcan", "pgd-edsr"])
    whole, smaller = read_bundle(bundle_folder), read_bundle(tmp_path / "smaller")
    assert list(smaller.purifiers) == ["fgsm-rcan", "pgd-edsr"]
    for name, purifier in smaller.purifiers.items():
        for key, value in purifier.state_dict().items():
            assert value.equal(whole.purifiers[name].state_dict()[key])
    assert len(read_bundle(bundle_folder).purifiers) == 4
