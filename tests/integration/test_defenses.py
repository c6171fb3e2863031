"""Every defense can be served under its name."""

from pathlib import Path

import numpy as np
import pytest

from models.defenses import DEFENSES
from models.inference.int8_convolution import int8_problem
from service.loading import load_engine
from service.metrics import Metrics
from service.settings import Settings

INT8 = pytest.mark.skipif(int8_problem() is not None, reason=f"no int8 here: {int8_problem()}")


@pytest.mark.parametrize("name", DEFENSES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", pytest.param("int8", marks=INT8)])
def test_the_engine_warms_up_and_answers_behind_it(bundle_folder: Path, name: str, precision: str) -> None:
    settings = Settings(bundle=bundle_folder, defense=name, device="cpu", precision=precision, max_batch=4)
    engine = load_engine(settings, Metrics())
    engine.warm_up()
    images = list(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))

    predictions = engine.classify(images)

    assert [float(one.scores.sum()) for one in predictions] == pytest.approx([1, 1, 1], abs=1e-3)
