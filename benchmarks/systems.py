"""The systems that are measured: how each is started, where it is asked, and in which form.

The variants are settings that the documentation of each names for tuning; which of them is best on a machine, `tuning`
finds out. The first is that of the gateway by default, and of the others what was best on two cores with our engine.
"""

import base64
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bodies import Body
from benchmarks.client import Target
from benchmarks.server import PURIGATE_SERVE
from service.settings import ENVIRONMENT_PREFIX, Settings
from service.workers import choose_workers

NO_OP, BARE, DEFENDED, ENSEMBLE = "no-op", "bare", "defended", "ensemble"
FASTAPI, LITSERVE, MOSEC = "FastAPI", "LitServe", "mosec"
PLAIN_FASTAPI, PLAIN_LITSERVE, PLAIN_MOSEC = "plain FastAPI", "plain LitServe", "plain mosec"
PYTHON = (sys.executable, "-m")
MAX_BATCH: int = Settings.model_fields["max_batch"].default
GATEWAY = (NO_OP, BARE, DEFENDED, ENSEMBLE)
PEERS = {
    FASTAPI: "fastapi",
    LITSERVE: "litserve",
    MOSEC: "mosec",
    PLAIN_FASTAPI: "fastapi",
    PLAIN_LITSERVE: "litserve",
    PLAIN_MOSEC: "mosec",
}
"""Each with the package that has to be there; the plain ones run the network as torch does, the others our engine."""


@dataclass(frozen=True)
class Served:
    """What every system serves.

    Attributes:
        bundle: its folder.
        device: as in 'purigate serve'.
        max_batch: most images of a batch.
        precision: as in 'purigate serve'.
    """

    bundle: Path
    device: str
    max_batch: int = MAX_BATCH
    precision: str = "auto"

    def environment(self) -> Mapping[str, str]:
        """That of every server: the settings of the gateway are those given here, and else its defaults."""
        others = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
        settings = {
            "BUNDLE": str(self.bundle),
            "DEVICE": self.device,
            "PRECISION": self.precision,
            "MAX_BATCH": str(self.max_batch),
        }
        return others | {f"{ENVIRONMENT_PREFIX}{name}": value for name, value in settings.items()}


@dataclass(frozen=True)
class System:
    """A server.

    Attributes:
        name: of the system.
        command: that starts it; it takes `--port`.
        flags: of the command.
        path: that is asked.
        json: whether images go as base64 in JSON rather than as they are.
    """

    name: str
    command: tuple[str, ...]
    flags: tuple[str, ...] = ()
    path: str = "/classify"
    json: bool = False

    def target(self, url: str, bodies: list[Body]) -> Target:
        """What a client asks of the server at `url`."""
        return Target(url + self.path, tuple(_in_json(*body) if self.json else body for body in bodies))


def systems() -> dict[str, tuple[System, ...]]:
    """The variants of each system, by its name; those that are compared stand together, for they take turns so."""
    plain = ("--network", "torch")
    return {
        NO_OP: (System(NO_OP, (*PYTHON, "benchmarks.noop_engine")),),
        ENSEMBLE: _gateways(ENSEMBLE, "disco-ensemble"),
        DEFENDED: _gateways(DEFENDED, "puridefense"),
        BARE: _gateways(BARE, "none"),
        MOSEC: _mosecs(MOSEC),
        PLAIN_MOSEC: _mosecs(PLAIN_MOSEC, *plain),
        LITSERVE: _litserves(LITSERVE),
        PLAIN_LITSERVE: _litserves(PLAIN_LITSERVE, *plain),
        FASTAPI: _fastapis(FASTAPI),
        PLAIN_FASTAPI: _fastapis(PLAIN_FASTAPI, *plain),
    }


def _gateways(name: str, defense: str) -> tuple[System, ...]:
    return tuple(
        System(name, PURIGATE_SERVE, ("--defense", defense, "--networks", networks))
        for networks in ("threads", "processes")
    )


def _fastapis(name: str, *network: str) -> tuple[System, ...]:
    cores = str(len(os.sched_getaffinity(0)))
    return tuple(
        System(name, (*PYTHON, "benchmarks.peers.fastapi_threads"), (*flags, *network))
        for flags in (("--threads", cores, "--share", cores), ("--threads", "1"), ("--threads", "40"))
    )


def _litserves(name: str, *network: str) -> tuple[System, ...]:
    return tuple(
        System(name, (*PYTHON, "benchmarks.peers.litserve_batches"), (*flags, *network), "/predict", json=True)
        for flags in _different(
            ("--workers", _workers(), "--batch-timeout-ms", "10"),
            ("--workers", "1", "--batch-timeout-ms", "10"),
            ("--workers", "1", "--batch-timeout-ms", "50"),
        )
    )


def _mosecs(name: str, *network: str) -> tuple[System, ...]:
    return tuple(
        System(name, (*PYTHON, "benchmarks.peers.mosec_batches"), (*flags, *network))
        for flags in _different(
            ("--workers", _workers(), "--decoders", "0", "--wait-ms", "10"),
            ("--workers", "1", "--decoders", "0", "--wait-ms", "10"),
            ("--workers", "1", "--decoders", "1", "--wait-ms", "10"),
        )
    )


def _workers() -> str:
    """As many as the gateway would have on this CPU."""
    return str(choose_workers(None, "cpu").count)


def _different(*flags: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Each once: on one processor more workers than one are the same as one."""
    return list(dict.fromkeys(flags))


def _in_json(content: bytes, _media_type: str) -> Body:
    return json.dumps({"image": base64.b64encode(content).decode()}).encode(), "application/json"
