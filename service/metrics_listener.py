"""A port of its own for the metrics, so that the port of the public has none.

It is served by a thread: a scrape is answered while the event loop hangs, while connections are at their limit, and
until the drain is over.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from prometheus_client import start_http_server

from service.metrics import Metrics

log = structlog.get_logger()


@contextmanager
def listen(metrics: Metrics, host: str, port: int) -> Iterator[int]:
    """Serves the metrics while it is open; gives the port, a free one for 0.

    Raises:
        OSError: the port is taken; it names it.
    """
    try:
        server, thread = start_http_server(port, host, registry=metrics.registry)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from error
    log.info("metrics_listening", host=host, port=server.server_port)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
