"""On what a result was made: versions, commit, device, time."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from evaluation.device import describe


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
            commit=_commit(),
        )


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return None
    return answer.stdout.strip() or None
