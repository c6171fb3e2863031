"""What a GPU does, as a CPU can do it: Triton's interpreter, and routed convolutions in torch."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models.recorded.routed_convolution import RoutedConvolution
from models.recorded.routed_pool import NOT_HERE

ROOT = Path(__file__).parents[3]


@pytest.fixture
def interpreted() -> Callable[..., str]:
    """Runs a program under Triton's interpreter, which has to be chosen before Triton is imported; gives its output."""
    if find_spec("triton") is None:
        pytest.skip("needs Triton")

    def run(program: str, *arguments: str) -> str:
        command = [sys.executable, "-c", program, *arguments]
        environment = os.environ | {"TRITON_INTERPRET": "1"}
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        return ran.stdout or ran.stderr

    return run


@pytest.fixture
def convolutions_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Routed convolutions as torch computes them, fast enough for many windows; those of no network are NaN."""
    monkeypatch.setattr(RoutedConvolution, "forward", _convolved)


def _convolved(layer: RoutedConvolution, windows: Tensor) -> Tensor:
    weights, biases, owners = cast("Tensor", layer.weight), cast("Tensor", layer.bias), layer.route.owners
    convolved = windows.new_full((len(windows), weights.shape[-1], *windows.shape[2:]), torch.nan)
    for owner in set(owners.tolist()) - {NOT_HERE}:
        mine = owners == owner
        kernel = weights[owner].view(layer.side, layer.side, *weights.shape[2:]).permute(3, 2, 0, 1)
        found = functional.conv2d(windows[mine], kernel, biases[owner], padding="same")
        convolved[mine] = found.relu() if layer.rectified else found
    return convolved
