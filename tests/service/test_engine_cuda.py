"""The engine on CUDA; skipped without a GPU."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from models.bundle import read_bundle
from models.device import Placement, Precision
from models.preprocessing import Pixels
from models.recorded import gathered_pool
from service.engine import TorchEngine
from service.metrics import Metrics
from service.networks import LocalNetworks

pytestmark = pytest.mark.cuda

BATCH = 8


def engine_on(device: str, folder: Path, precision: Precision = "float32", *broken: str) -> TorchEngine:
    """An engine some of whose purifiers give no numbers."""

    def same_bytes(images: Sequence[Pixels], count: int, turn: int) -> bytes:  # noqa: ARG001
        return np.random.default_rng(0).bytes(len(images) * count)

    bundle = read_bundle(folder)
    for name in broken:
        for weights in bundle.purifiers[name].parameters():
            weights.fill_(torch.nan)
    networks = LocalNetworks(bundle, "puridefense", Placement(torch.device(device), precision))
    return TorchEngine(bundle, "puridefense", networks, BATCH, same_bytes, Metrics())


def test_cuda_gives_the_scores_of_the_cpu_under_the_same_draws(bundle_folder: Path) -> None:
    images = list(np.random.default_rng(1).integers(0, 256, (BATCH, 32, 32, 3), np.uint8))
    on_cuda, on_cpu = (
        np.stack([one.scores for one in engine_on(device, bundle_folder).classify(images)])
        for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(on_cuda, on_cpu, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_cuda_warms_up(bundle_folder: Path, precision: Precision) -> None:
    engine_on("cuda", bundle_folder, precision).warm_up()


@pytest.mark.parametrize("worthwhile", [1, 2**62], ids=["gathered", "routed"])
def test_on_cuda_a_purifier_that_gives_no_numbers_is_taken_out_and_its_queries_are_answered(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch, worthwhile: int
) -> None:
    monkeypatch.setattr(gathered_pool, "WORTHWHILE", worthwhile)
    engine = engine_on("cuda", bundle_folder, "bfloat16", "pgd-edsr")

    predictions = engine.classify(list(np.random.default_rng(1).integers(0, 256, (BATCH, 32, 32, 3), np.uint8)))

    assert np.isfinite([one.scores for one in predictions]).all()
    assert engine.purifiers == ("fgsm-edsr", "fgsm-rcan", "pgd-rcan")
