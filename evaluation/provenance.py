"""On what a result was made: versions, commit, device, time."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version

import torch
from pydantic import BaseModel, ConfigDict

from evaluation.device import describe
from models.checkout import commit


class Provenance(BaseModel):
    """Beside every result.

    Attributes:
        created: when the result was complete, ISO 8601.
        seconds: that it took.
        device: in words.
        commit: of the code, marked if it was changed since; none outside of a checkout.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    created: str
    seconds: float
    device: str
    python: str
    pytorch: str
    purigate: str
    commit: str | None

    @classmethod
    def now(cls, device: torch.device, seconds: float) -> "Provenance":
        """Of a result that took so many seconds on a device and is complete now."""
        return cls(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 3),
            device=describe(device),
            python=platform.python_version(),
            pytorch=torch.__version__,
            purigate=version("purigate"),
            commit=commit(),
        )
