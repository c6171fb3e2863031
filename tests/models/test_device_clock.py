"""Clocks of the work on a device."""

import time

import pytest
import torch

from models.device_clock import device_clock


def test_the_clock_of_a_cpu_tells_the_time_between_its_marks() -> None:
    clock = device_clock(torch.device("cpu"))
    begin = time.perf_counter()
    clock.mark()
    while time.perf_counter() < begin + 0.01:
        pass
    clock.mark()
    clock.mark()
    whole = time.perf_counter() - begin
    busy, nothing = clock.seconds()
    assert 0 <= nothing < busy <= whole


@pytest.mark.cuda
def test_the_clock_of_a_gpu_tells_the_time_of_its_work() -> None:
    device = torch.device("cuda")
    clock = device_clock(device)
    factor = torch.rand(4096, 4096, device=device)
    torch.cuda.synchronize()
    clock.mark()
    for _ in range(50):
        factor = factor @ factor
    clock.mark()
    clock.mark()
    torch.cuda.synchronize()
    busy, nothing = clock.seconds()
    assert 0 <= nothing < busy
