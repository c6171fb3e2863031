"""Floors of what networks compute and move."""

import torch
from torch import nn

from benchmarks.floors import Rates, Work, traffic


def test_a_floor_is_work_over_rate() -> None:
    floors = Work(gigaflops=2, feature_bytes=3e9, weight_bytes=4e9).floors_ms(Rates(100, 10), batch=4)
    assert floors == {"computing": 20, "moving": 400}


def test_every_layer_reads_its_input_and_writes_its_output() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(nn.ReLU(), nn.Flatten()), nn.Linear(128, 10))
    pixels, features, logits = 3 * 16, 8 * 16, 10
    assert traffic(network, torch.rand(1, 3, 4, 4)) == 4 * (pixels + 3 * 2 * features - features + features + logits)
    assert not any(module._forward_hooks for module in network.modules())


def test_a_machine_has_rates() -> None:
    threads = torch.get_num_threads()
    try:
        rates = Rates.measured()
    finally:
        torch.set_num_threads(threads)
    assert rates.gigaflops > 0
    assert rates.gigabytes > 0
