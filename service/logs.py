"""Logs: one JSON object a line on standard output, those of the libraries too."""

import json
import logging
import sys
from contextlib import suppress
from typing import Any

import structlog
from structlog.types import Processor


class Lines:
    """Writes lines to standard output; one that cannot be written is lost, since a full disk must stop no request."""

    def __init__(self) -> None:
        self._writer = structlog.WriteLogger(sys.stdout)

    def msg(self, line: str) -> None:
        """Writes a line, in one piece."""
        with suppress(OSError):
            self._writer.msg(line)

    info = warning = error = exception = critical = msg


ENCODER = json.JSONEncoder(default=repr)


def _json(event: Any, **_options: Any) -> str:
    """The same as `json.dumps`, which makes an encoder for each line."""
    return ENCODER.encode(event)


def configure_logs() -> None:
    """Sends structlog's and the standard library's logs through one JSON renderer; called once, by the entry point.

    Our own lines do not go through the standard library: that would take longer than all else about the one line that
    each request writes.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[Processor] = [
        structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
        structlog.processors.JSONRenderer(_json),
    ]
    structlog.configure(
        processors=[*shared, *rendering],
        logger_factory=Lines,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.captureWarnings(capture=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
