"""The keys that are accepted now: those of a file, read again when it changes."""

import asyncio
from pathlib import Path

import structlog

from service.keys import Key, KeysFile, KeysFileError
from service.metrics import Metrics

log = structlog.get_logger()

LOOK_SECONDS = 1.0
Signature = tuple[int, int, int]


class Keyring:
    """Follows a keys file. A file that cannot be read leaves the keys as they were.

    Args:
        path: of the keys file.
        metrics: where readings are counted.

    Raises:
        KeysFileError: the file cannot be read at the start.
    """

    def __init__(self, path: Path, metrics: Metrics) -> None:
        self._path = path
        self._metrics = metrics
        self._signature = _signature(path)
        self._keys = KeysFile.read(path)

    def identify(self, secret: str) -> Key:
        """The key that `secret` is.

        Raises:
            service.errors.UnauthenticatedError: it is none of ours.
        """
        return self._keys.identify(secret)

    def refresh(self) -> None:
        """Reads the file again if it is not the one that was read last."""
        signature = _signature(self._path)
        if signature != self._signature:
            self._signature = signature
            self.reload()

    def reload(self) -> None:
        """Reads the file again, whether it changed or not."""
        try:
            self._keys = KeysFile.read(self._path)
        except KeysFileError as error:
            self._metrics.reloads.labels(what="keys", outcome="failed").inc()
            log.error("keys_not_reloaded", reason=str(error))  # noqa: TRY400 - the reason says it all
        else:
            self._metrics.reloads.labels(what="keys", outcome="done").inc()
            log.info("keys_reloaded", keys=[key.id for key in self._keys.keys])

    async def follow(self) -> None:
        """Looks at the file every second, until it is cancelled; a bug in one look does not end it."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self.refresh()
            except Exception:
                log.exception("keys_not_followed")


def _signature(path: Path) -> Signature | None:
    """Changes whenever the file is written or replaced; nothing while there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
