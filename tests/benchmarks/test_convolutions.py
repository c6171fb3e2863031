"""Convolutions with fewer multiplications beside torch's own."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from benchmarks.convolutions import LAYERS, with_plain_convolutions
from models.inference.winograd import WinogradConvolution, use_winograd

PATIENCE_SECONDS = 240


def test_the_plain_network_has_torchs_convolutions_and_the_same_weights() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 8, 1)).requires_grad_(False)
    images = torch.rand(2, 128, 16, 16)
    expected = network(images)
    use_winograd(network)
    plain = with_plain_convolutions(network)
    assert torch.equal(plain(images), expected)
    assert type(plain.get_submodule("0")) is nn.Conv2d
    assert isinstance(network.get_submodule("0"), WinogradConvolution)


def test_every_layer_and_the_classifier_are_timed(bundle_folder: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.convolutions", "--bundle", str(bundle_folder)]
    flags = ["--batches", "1,2", "--rounds", "2", "--threads", "2"]
    told = json.loads(
        subprocess.run([*command, *flags], capture_output=True, check=True, timeout=PATIENCE_SECONDS).stdout
    )
    assert told["threads"] == 2
    measured = [one for one in told.values() if isinstance(one, dict) and "largest_error" in one]
    assert len(measured) == 2 * (1 + len(LAYERS))
    assert all(one["largest_error"] < 1e-4 for one in measured)
    assert told["classifier, batch 1"]["largest_error"] == 0  # the networks of this bundle are narrow
    assert told["512 channels, 7 x 7, batch 2"]["largest_error"] > 0
