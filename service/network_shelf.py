"""The networks that a process holds for several gateways, and when they leave the memory."""

import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from models.bundle import Bundle, BundleError, read_bundle
from models.device import give_back_memory
from service.networks import Networks
from service.shared_networks import Wanted

log = structlog.get_logger()


class Shelf:
    """The networks that gateways use, and those that were asked for last.

    Args:
        folder: of the bundle; it is read again whenever other networks are asked for.
        make: gives the networks of a bundle behind the defense of a name.
    """

    def __init__(self, folder: Path, make: Callable[[Bundle, str], Networks]) -> None:
        self._folder = folder
        self._make = make
        self._changing = threading.Lock()
        self._networks: dict[Wanted, Networks] = {}
        self._users: dict[Wanted, int] = {}
        self._last: Wanted | None = None

    def take(self, wanted: Wanted, bundle: Bundle | None = None) -> Networks:
        """The networks that are wanted; they stay until they are given back.

        Args:
            wanted: which.
            bundle: that has them, if it was read already.

        Raises:
            BundleError: the bundle in the folder cannot be read, or has others.
        """
        with self._changing:
            if wanted not in self._networks:
                self._drop_unused()  # before the device has to hold these too
                self._networks[wanted] = self._load(wanted, bundle)
                self._users[wanted] = 0
            self._users[wanted] += 1
            self._last = wanted
            return self._networks[wanted]

    def find(self, wanted: Wanted) -> Networks:
        """Networks that were taken."""
        return self._networks[wanted]

    def give_back(self, wanted: Wanted) -> None:
        """Drops them if nobody else has them, unless they are the last that were asked for: one may begin again."""
        with self._changing:
            self._users[wanted] -= 1
            self._drop_unused(but=self._last)

    def _load(self, wanted: Wanted, bundle: Bundle | None) -> Networks:
        try:
            bundle = bundle or read_bundle(self._folder)
        except BundleError as error:  # a gateway may tell it to a client, who need not know where it lies
            raise BundleError(str(error).replace(f"{self._folder}/", "")) from error
        if bundle.manifest.networks != wanted.networks:
            raise BundleError("whoever holds the networks finds another bundle in its folder now")
        networks = self._make(bundle, wanted.defense)
        told = bundle.manifest
        log.info("networks_loaded", bundle=told.name, version=told.version, defense=wanted.defense)
        return networks

    def _drop_unused(self, but: Wanted | None = None) -> None:
        unused = [one for one, users in self._users.items() if not users and one != but]
        for one in unused:
            del self._users[one], self._networks[one]
            log.info("networks_dropped", defense=one.defense)
        if unused:
            give_back_memory()
