"""Devices and precisions by their names."""

import pytest
import torch

from models.device import (
    DeviceMissingError,
    Placement,
    PrecisionMissingError,
    choose_device,
    choose_placement,
    choose_precision,
    send,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "mps", "nonsense", "cpu:x"])
def test_a_device_that_does_not_exist_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(DeviceMissingError, match=name):
        choose_device(name)


def test_the_cpu_is_taken_if_it_is_asked_for() -> None:
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_precision_that_is_asked_for_is_taken(name: str) -> None:
    assert choose_precision(name, CPU) == name
    assert choose_placement("cpu", name) == Placement(CPU, name)


def test_int8_is_taken_where_the_processor_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.device.int8_problem", lambda: None)
    assert choose_precision("int8", CPU) == "int8"
    monkeypatch.setattr("models.device.int8_problem", lambda: "no such kernel")
    with pytest.raises(PrecisionMissingError, match="int8 on cpu: no such kernel"):
        choose_precision("int8", CPU)


def test_int8_is_for_cpus() -> None:
    with pytest.raises(PrecisionMissingError, match="int8 on cuda: it is for CPUs"):
        choose_precision("int8", torch.device("cuda"))


@pytest.mark.parametrize("name", ["float16", "INT8", ""])
def test_a_precision_that_does_not_exist_is_an_error_that_names_those_that_do(name: str) -> None:
    with pytest.raises(PrecisionMissingError, match=f"precision {name}: there are auto, float32, bfloat16, int8"):
        choose_precision(name, CPU)


def test_the_precision_of_a_cpu_follows_what_it_computes_natively(monkeypatch: pytest.MonkeyPatch) -> None:
    for native, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda native=native: {"avx512_bf16": native})
        assert choose_precision("auto", CPU) == precision


@pytest.mark.parametrize("name", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize("shape", [(3, 2), (0, 2)])
def test_a_tensor_that_is_sent_arrives_whole(name: str, shape: tuple[int, ...]) -> None:
    tensor = torch.rand(shape)

    arrived = send(tensor, torch.device(name))

    assert arrived.device.type == name
    assert torch.equal(arrived.cpu(), tensor)
