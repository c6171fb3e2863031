"""Whom the service can be reached by, and what must not be served to others unawares."""

import ipaddress

import structlog

from models.bundle import Manifest, read_manifest
from service.settings import Settings, embedded_bundle

log = structlog.get_logger()


class ExposedError(Exception):
    """The address can be reached from outside and nobody is asked for a key."""


def require_safe_address(settings: Settings) -> None:
    """Refuses to be reachable from outside by accident.

    Raises:
        ExposedError: see there.
    """
    if settings.insecure or settings.keys_file or _is_loopback(settings.host):
        return
    raise ExposedError(
        f"{settings.host} can be reached from outside and no key is configured: make one with 'purigate keys new', "
        "name its file with --keys-file, or say --insecure if something else in front of the service asks for keys"
    )


def warn_of_public_bundle(settings: Settings, manifest: Manifest) -> None:
    """Logs that purifiers which anybody can download protect nothing, unless only this machine asks, without keys."""
    served_to_others = settings.keys_file or not _is_loopback(settings.host)
    if served_to_others and manifest.pool == read_manifest(embedded_bundle()).pool:
        log.warning("public_bundle", reason="anybody can download its purifiers: train a pool of your own")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
