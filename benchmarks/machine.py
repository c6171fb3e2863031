"""The machine that something is measured on, as every result tells it."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, PositiveInt

from models.checkout import commit

PACKAGES = ("torch", "fastapi", "uvicorn", "pillow", "aiohttp", "litserve", "mosec")


class Machine(BaseModel):
    """Where it ran, and with what.

    Attributes:
        processor: its model in words.
        processors: that this run might use.
        versions: of Python and of the packages that matter; those that are there.
        commit: of the code, marked if it was changed since; none outside of a checkout.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    processor: str
    processors: PositiveInt
    versions: dict[str, str]
    commit: str | None
    date: str

    @classmethod
    def here(cls) -> "Machine":
        """This one, now."""
        return cls(
            processor=_processor(),
            processors=len(os.sched_getaffinity(0)),
            versions={"python": platform.python_version()} | _versions(),
            commit=commit(),
            date=datetime.now(UTC).date().isoformat(),
        )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
