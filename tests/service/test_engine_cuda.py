"""The engine on CUDA; skipped without a GPU."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from models.bundle import read_bundle
from models.device import Placement
from models.preprocessing import Pixels
from service.engine import TorchEngine
from service.metrics import Metrics
from service.networks import LocalNetworks

pytestmark = pytest.mark.cuda

BATCH = 8


def engine_on(device: str, folder: Path) -> TorchEngine:
    def same_bytes(images: Sequence[Pixels], count: int, turn: int) -> bytes:  # noqa: ARG001
        return np.random.default_rng(0).bytes(len(images) * count)

    bundle = read_bundle(folder)
    networks = LocalNetworks(bundle, "puridefense", Placement(torch.device(device), "float32"))
    return TorchEngine(bundle, "puridefense", networks, BATCH, same_bytes, Metrics())


def test_cuda_gives_the_scores_of_the_cpu_under_the_same_draws(bundle_folder: Path) -> None:
    images = list(np.random.default_rng(1).integers(0, 256, (BATCH, 32, 32, 3), np.uint8))
    on_cuda, on_cpu = (
        np.stack([one.scores for one in engine_on(device, bundle_folder).classify(images)])
        for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(on_cuda, on_cpu, atol=1e-3)


def test_cuda_warms_up(bundle_folder: Path) -> None:
    engine_on("cuda", bundle_folder).warm_up()
