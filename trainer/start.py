"""Where purifiers start: as new ones, or as those of an earlier bundle, to adapt a pool rather than train it anew."""

from pathlib import Path

from pydantic import JsonValue
from torch import nn

from models.bundle import BundleError, Manifest, read_bundle, read_manifest
from models.purifier import Purifier
from trainer.errors import NetworkError

MEASURED = ("accuracy", "diversity", "cost")
"""Keys of a provenance that are of the very bundle and not of where it came from."""


def first_weights(folder: Path, attack: str, purifiers: nn.ModuleDict) -> None:
    """Gives the purifiers of one attack the weights that they have in a bundle.

    Args:
        folder: of the bundle.
        attack: that they are trained on.
        purifiers: by the name of their architecture; changed in place.

    Raises:
        NetworkError: the bundle cannot be read, or has other purifiers.
    """
    try:
        found = read_bundle(folder).purifiers
    except BundleError as error:
        raise NetworkError(f"pool.training.start: {error}") from error
    for name, purifier in purifiers.items():
        other = found.get(f"{attack}-{name}")
        if not isinstance(other, Purifier) or other.config != purifier.config:
            raise NetworkError(f"pool.training.start: {folder} has no {attack}-{name} of this architecture")
        purifier.load_state_dict(other.state_dict())


def start_origin(folder: Path, attack: str) -> JsonValue:
    """What decides the first weights of the purifiers of one attack.

    Raises:
        NetworkError: the manifest of the bundle cannot be read.
    """
    entries = _manifest(folder).pool.purifiers
    return {entry.name: entry.weights.sha256 for entry in entries if entry.name.startswith(f"{attack}-")}


def start_history(folder: Path) -> JsonValue:
    """Which bundle it was and where that came from; nothing of its classifier, nor of what was measured of it.

    Raises:
        NetworkError: the manifest of the bundle cannot be read.
    """
    manifest = _manifest(folder)
    told = {key: value for key, value in manifest.provenance.items() if key not in MEASURED}
    networks = told.get("networks")
    if isinstance(networks, dict):
        told["networks"] = {key: value for key, value in networks.items() if key != "classifier"}
    return {
        "bundle": manifest.name,
        "version": manifest.version,
        "purifiers": {entry.name: entry.weights.sha256 for entry in manifest.pool.purifiers},
        "provenance": told,
    }


def _manifest(folder: Path) -> Manifest:
    try:
        return read_manifest(folder)
    except BundleError as error:
        raise NetworkError(f"pool.training.start: {error}") from error
