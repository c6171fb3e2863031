"""Precisions beside one another, on a small bundle."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.inference.int8_convolution import int8_problem
from tests.conftest import LABELS

PATIENCE_SECONDS = 240


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of each label."""
    root, generator = tmp_path_factory.mktemp("tree"), np.random.default_rng(0)
    for label in LABELS:
        (root / label).mkdir()
        for number in range(3):
            pixels = generator.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(root / label / f"{number}.png")
    return root


@pytest.mark.skipif(int8_problem() is not None, reason=f"no int8 here: {int8_problem()}")
def test_each_precision_is_compared_with_float32(bundle_folder: Path, tree: Path) -> None:
    flags = ["--bundle", bundle_folder, "--images", tree, "--precisions", "int8", "--rounds", "2", "--seconds", "0.01"]
    command = [sys.executable, "-m", "benchmarks.precisions", *map(str, flags)]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_SECONDS).stdout)

    assert set(told["answers"]) == {"float32", "int8"}
    assert told["answers"]["float32"] | {"accuracy": 0} == {
        "images": 12,
        "accuracy": 0,
        "same_class": 1,
        "mean_logit_change": 0,
        "largest_logit_change": 0,
    }
    assert told["answers"]["int8"]["largest_logit_change"] > 0
    for kind in ("none, batch 1", "puridefense, batch 32"):
        speeds = told["images_per_second"][kind]
        assert speeds["float32"]["over_float32"] == 1
        assert speeds["int8"]["least"] <= speeds["int8"]["over_float32"] <= speeds["int8"]["most"]
