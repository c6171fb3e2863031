"""Who trained what: the part of a checkpoint, and later of a manifest, that tells of machines, versions and time."""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import torch
from lightning_fabric import Fabric
from pydantic import JsonValue

from models.checkout import commit


@dataclass(frozen=True)
class Session:
    """One start of a training.

    Attributes:
        begun: when, UTC.
        from_step: steps that were done before.
        where: machine and versions.
        clock: in seconds.
        started: what the clock said.
    """

    begun: str
    from_step: int
    where: dict[str, JsonValue]
    clock: Callable[[], float]
    started: float

    @classmethod
    def begin(cls, fabric: Fabric, from_step: int, clock: Callable[[], float]) -> "Session":
        """A session that begins now."""
        device = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else fabric.device.type
        where: dict[str, JsonValue] = {
            "device": device,
            "processes": fabric.world_size,
            "precision": fabric.strategy.precision.precision,
            **versions(),
        }
        return cls(now(), from_step, where, clock, clock())

    def entry(self, steps_done: int) -> dict[str, JsonValue]:
        """The session so far, as JSON."""
        seconds = round(self.clock() - self.started, 1)
        steps: list[JsonValue] = [self.from_step, steps_done]
        return {"begun": self.begun, "seconds": seconds, "steps": steps, **self.where}


def versions() -> dict[str, JsonValue]:
    """Of what decides a result, beside recipe and images."""
    return {
        "purigate": version("purigate"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": version("torchvision"),
        "lightning-fabric": version("lightning-fabric"),
        "commit": commit(),
    }


def now() -> str:
    """ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
