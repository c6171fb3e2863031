"""What is timed, not how long it took."""

from pathlib import Path

from evaluation.served import LocalServed
from evaluation.speed import measure_speed, read_speed, write_speed


def test_the_pool_and_the_ensemble_are_timed_at_every_size_beside_the_bare_classifier(
    bundle_folder: Path, tmp_path: Path
) -> None:
    record = measure_speed(LocalServed(bundle_folder, "cpu", "float32"), rounds=3, seed=0)

    timed = {(one.defense, one.purifiers, one.batch) for one in record.timings}
    sizes = [("none", 0), *((name, size) for size in (1, 2, 3, 4) for name in ("puridefense", "disco-ensemble"))]
    assert timed == {(*one, batch) for one in sizes for batch in (1, 32)}
    assert all(0 < one.quartiles_ms[0] <= one.median_ms <= one.quartiles_ms[1] for one in record.timings)

    write_speed(tmp_path, record)
    assert read_speed([tmp_path]) == [record]
