"""Where a training runs: the device, the number of processes and the precision, opened as one Fabric."""

from typing import Literal

import torch
from lightning_fabric import Fabric

from models.device import choose_precision
from trainer.errors import DeviceError, first_line

Precision = Literal["auto", "bf16-mixed", "32-true"]
TRAINED_ON = ("cpu", "cuda")


def open_fabric(device: str, processes: int, precision: Precision) -> Fabric:
    """Opens and launches a Fabric; with several processes, each of them returns from here.

    Args:
        device: `auto`, `cpu`, `cuda`, or, for one process, `cuda:N`.
        processes: how many, each with a device of its own; on the CPU they share the cores.
        precision: of the arithmetic; weights are float32 in all. `auto` is bfloat16 where the device computes it
            natively: a CPU that emulates it takes ten times as long as in float32.

    Raises:
        DeviceError: that device, or that many of it, is not there, or nothing is trained on such a one.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"device {device}: {first_line(error)}") from error
    if chosen.type not in TRAINED_ON:
        raise DeviceError(f"device {device}: trained is on {' or '.join(TRAINED_ON)}")
    if chosen.type == "cpu":
        chosen = torch.device("cpu")  # there is one alone, whatever its number
    if processes > 1 and chosen.index is not None:
        raise DeviceError(f"{processes} processes need {processes} devices: say 'cuda', not {device!r}")
    if chosen.type == "cuda" and processes > torch.cuda.device_count():
        raise DeviceError(f"{processes} processes need as many GPUs; this machine has {torch.cuda.device_count()}")
    if precision == "auto":
        precision = "bf16-mixed" if choose_precision("auto", chosen) == "bfloat16" else "32-true"
    torch.set_flush_denormal(True)
    fabric = Fabric(
        accelerator=chosen.type,
        devices=processes if chosen.index is None else [chosen.index],
        strategy="ddp" if processes > 1 else "auto",
        precision=precision,
    )
    fabric.launch()
    return fabric


def share(total: int, fabric: Fabric, what: str) -> slice:
    """Which of `total` images belong to this process: every n-th, so that the first of all are the first of each.

    Raises:
        DeviceError: they cannot be shared equally.
    """
    if total % fabric.world_size:
        raise DeviceError(f"{what} of {total} images cannot be shared by {fabric.world_size} processes")
    return slice(fabric.global_rank, total, fabric.world_size)
