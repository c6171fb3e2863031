"""A device that is not there is told, and a batch is shared equally or not at all."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from lightning_fabric import Fabric

from trainer.devices import open_fabric, share
from trainer.errors import DeviceError
from trainer.inference import as_served


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    yield
    torch.set_flush_denormal(False)


def process(rank: int, of: int) -> Fabric:
    """What `share` asks a Fabric for."""
    return cast("Fabric", SimpleNamespace(global_rank=rank, world_size=of))


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_a_fabric_is_opened_on_the_cpu(precision: str) -> None:
    fabric = open_fabric("cpu", 1, precision)  # type: ignore[arg-type]

    assert (fabric.device.type, fabric.world_size, fabric.is_global_zero) == ("cpu", 1, True)
    assert fabric.strategy.precision.precision == precision


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_takes_bfloat16_only_where_the_processor_computes_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})

    assert open_fabric("cpu", 1, "auto").strategy.precision.precision == precision
    assert torch.is_autocast_enabled("cpu") is False
    with as_served(torch.device("cpu")):
        assert torch.is_autocast_enabled("cpu") is native


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here")
def test_without_a_gpu_auto_is_the_cpu() -> None:
    assert open_fabric("auto", 1, "32-true").device.type == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "cpu:x"])
def test_a_device_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(DeviceError, match=f"device {name}: "):
        open_fabric(name, 1, "32-true")


def test_the_cpu_is_one_whatever_its_number() -> None:
    assert open_fabric("cpu:0", 1, "32-true").device == torch.device("cpu")


def test_a_device_that_nothing_is_trained_on_is_told() -> None:
    with pytest.raises(DeviceError, match="device meta: trained is on cpu or cuda"):
        open_fabric("meta", 1, "32-true")


@pytest.mark.cuda
def test_more_processes_than_gpus_are_told() -> None:
    with pytest.raises(DeviceError, match="1000 processes need as many GPUs"):
        open_fabric("cuda", 1000, "32-true")


@pytest.mark.cuda
def test_several_processes_on_one_gpu_are_told() -> None:
    with pytest.raises(DeviceError, match="2 processes need 2 devices"):
        open_fabric("cuda:0", 2, "32-true")


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_shares_of_a_batch_are_equal_and_make_the_whole(processes: int) -> None:
    shares = [list(range(12))[share(12, process(rank, processes), "a batch")] for rank in range(processes)]

    assert {len(one) for one in shares} == {12 // processes}
    assert sorted(index for one in shares for index in one) == list(range(12))


def test_the_first_images_of_all_are_the_first_of_each() -> None:
    first = [set(range(12)[share(12, process(rank, 2), "a batch")][:3]) for rank in range(2)]

    assert first[0] | first[1] == set(range(6))


def test_a_batch_that_cannot_be_shared_equally_is_told() -> None:
    with pytest.raises(DeviceError, match="a batch of 5 images cannot be shared by 2 processes"):
        share(5, process(0, 2), "a batch")
