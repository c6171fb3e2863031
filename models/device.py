"""The device that networks run on, and the precision of their arithmetic there."""

import gc
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from models.inference.int8_convolution import int8_problem

Precision = Literal["float32", "bfloat16", "int8"]


@dataclass(frozen=True)
class Placement:
    """Where networks run, and how precisely.

    Attributes:
        device: `cpu`, `cuda` or `cuda:N`.
        precision: of convolutions and matrix products; in `int8`, of the wide convolutions of the classifier.
    """

    device: torch.device
    precision: Precision


class PlacementError(Exception):
    """Networks cannot run as they are asked to."""


class DeviceMissingError(PlacementError):
    """The device that is asked for does not exist."""


class PrecisionMissingError(PlacementError):
    """The device, or the network, has no arithmetic of the precision that is asked for."""


def choose_device(name: str) -> torch.device:
    """The device of that name, `cpu`, `cuda` or `cuda:N`; `auto` is CUDA if there is one, else the CPU.

    Raises:
        DeviceMissingError: there is no such device, or none of that number.
    """
    cuda_devices = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if cuda_devices else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceMissingError(f"device {name}: {str(error).splitlines()[0]}") from error
    if device.type not in {"cpu", "cuda"}:
        raise DeviceMissingError(f"device {name}: only cpu and cuda are supported")
    if device.type == "cuda" and (device.index or 0) >= cuda_devices:
        raise DeviceMissingError(f"device {name} was asked for; this machine has {cuda_devices} CUDA devices")
    return device


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision of that name; `auto` is bfloat16 where the device computes it natively, else float32.

    Raises:
        PrecisionMissingError: there is none of that name, or the device cannot compute in int8.
    """
    if name not in {"auto", *get_args(Precision)}:
        raise PrecisionMissingError(f"precision {name}: there are auto, {', '.join(get_args(Precision))}")
    if name == "int8" and (problem := int8_problem() if device.type == "cpu" else "it is for CPUs"):
        raise PrecisionMissingError(f"precision int8 on {device}: {problem}")
    if name != "auto":
        return cast("Precision", name)
    if device.type == "cuda":
        with torch.cuda.device(device):  # it asks about the current one
            native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu.get_capabilities().get("avx512_bf16", False)
    return "bfloat16" if native else "float32"


def device_name(device: torch.device) -> str:
    """The device in words: that of the GPU, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on `device`, without waiting until that has done what it was told before.

    From memory that is not pinned, a copy waits for all of it, and a GPU that waits to be told more meanwhile is idle.
    """
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def give_back_memory() -> None:
    """Frees what only cycles still hold, and gives the memory that PyTorch keeps for later back to the GPU."""
    gc.collect()
    with suppress(RuntimeError):  # of a device that is beyond it
        torch.cuda.empty_cache()


def choose_placement(device: str, precision: str) -> Placement:
    """Both by their names.

    Raises:
        DeviceMissingError, PrecisionMissingError: as `choose_device` and `choose_precision` do.
    """
    chosen = choose_device(device)
    return Placement(chosen, choose_precision(precision, chosen))
