"""Divisions of a device among workers, beside one another, on a small bundle."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PATIENCE_SECONDS = 240


def run(*flags: str | Path) -> subprocess.CompletedProcess[str]:
    """The command, with short slices."""
    command = [sys.executable, "-m", "benchmarks.workers", "--rounds", "2", "--seconds", "0.01", *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)


def test_each_division_is_compared_with_that_of_the_fewest_workers(bundle_folder: Path, tmp_path: Path) -> None:
    written = tmp_path / "workers.json"
    ran = run("--bundle", bundle_folder, "--device", "cpu", "--counts", "2,1", "--batches", "3", "--output", written)
    told = json.loads(ran.stdout)

    assert json.loads(written.read_text()) == told
    assert told["device"] == "cpu"
    assert set(told["images_per_second"]) == {"none, batch 3", "puridefense, batch 3"}
    for speeds in told["images_per_second"].values():
        assert list(speeds) == ["1", "2"]
        assert speeds["1"]["over_1"] == 1
        assert 0 < speeds["2"]["least"] <= speeds["2"]["over_1"] <= speeds["2"]["most"]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--counts", "1,many"), "1,many is no list"),
        (("--batches", "0"), "has to be of numbers above 0"),
        (("--device", "tpu"), "device tpu"),
    ],
)
def test_what_cannot_be_measured_is_refused(flags: tuple[str, ...], complaint: str) -> None:
    ran = run(*flags)
    assert ran.returncode == 2
    assert complaint in " ".join(ran.stderr.replace("│", " ").split())
