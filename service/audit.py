"""The audit log: one JSON line for every answered query, in a file of its own that is rotated."""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path
from queue import Full, Queue
from typing import Any

import structlog

from models.preprocessing import Pixels
from service.metrics import Metrics
from service.settings import Settings

log = structlog.get_logger()

WAITING_LINES = 10_000
MODE = 0o600


class AuditLog:
    """Writes lines in a thread of its own, so that a slow disk holds up no query.

    Lines that cannot be written, or that too many others wait before, are lost; each is counted, and the first of a
    row is told.

    Args:
        path: of the file; older ones are beside it as `.1`, `.2` and so on.
        max_bytes: of one file.
        backups: older files that are kept.
        metrics: where lost lines are counted.
    """

    def __init__(self, path: Path, max_bytes: int, backups: int, metrics: Metrics) -> None:
        path.touch(MODE)  # who was asked what is nobody else's business
        self._metrics = metrics
        self._losing = False
        self._writer = _Writer(path, max_bytes, backups, self)
        self._waiting: Queue[logging.LogRecord | None] = Queue(WAITING_LINES)
        self._queue = _Enqueuer(self._waiting, self)
        self._listener = _Listener(self._waiting, self._writer)

    @classmethod
    @contextmanager
    def open(cls, settings: Settings, metrics: Metrics) -> "Iterator[AuditLog | None]":
        """The one that the settings ask for, if any; writes what waits before it closes."""
        if settings.audit_file is None:
            yield None
            return
        audit = cls(settings.audit_file, settings.audit_max_bytes, settings.audit_backups, metrics)
        audit._listener.start()
        try:
            yield audit
        finally:
            audit._listener.stop()
            audit._writer.close()

    def record(self, image: Pixels, **fields: Any) -> None:
        """Writes one line: the time, the SHA-256 of the image as the classifier takes it, and `fields`."""
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        line = json.dumps({"time": datetime.now(UTC).isoformat(), "image_sha256": digest, **fields})
        self._queue.handle(logging.LogRecord("audit", logging.INFO, "", 0, line, None, None))

    def lose(self, reason: str) -> None:
        """Called for every line that is not written."""
        self._metrics.audit_lines_lost.inc()
        if not self._losing:
            self._losing = True
            log.error("audit_lines_lost", reason=reason)

    def write_again(self) -> None:
        """Called for every line that is written."""
        self._losing = False


class _Enqueuer(QueueHandler):
    def __init__(self, queue: "Queue[logging.LogRecord | None]", audit: AuditLog) -> None:
        super().__init__(queue)
        self._audit = audit

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except Full:
            self._audit.lose("too many lines wait")


class _Listener(QueueListener):
    def __init__(self, queue: "Queue[logging.LogRecord | None]", writer: "_Writer") -> None:
        super().__init__(queue, writer)
        self._waiting = queue

    def enqueue_sentinel(self) -> None:
        """Waits for a place at the end of the queue; the library's own fails where there is none."""
        self._waiting.put(None)


class _Writer(RotatingFileHandler):
    def __init__(self, path: Path, max_bytes: int, backups: int, audit: AuditLog) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8")
        self._audit = audit
        self._failed = False

    def _open(self) -> Any:
        stream = super()._open()
        Path(self.baseFilename).chmod(MODE)
        return stream

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line, in a new file if the present one is full."""
        self._failed = False
        super().emit(record)
        if not self._failed:
            self._audit.write_again()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002 - the library's name
        """Called when a line could not be written."""
        self._failed = True
        self._audit.lose("the file cannot be written")
