"""How many files, and so connections, this process may have open."""

import resource

import structlog

log = structlog.get_logger()

SPARE = 256
"""For what is no connection of a client: Redis, logs, pipes to networks, files that are read."""


def allow_connections(connections: int) -> int:
    """Raises the soft limit of open files, which is often 1,024, as far as that many connections need and may have.

    At the limit the event loop would accept connections and drop them without a word, probes too; the limit on
    connections, which answers them, has to come first. A limit that is too low all the same is told in the log.

    Args:
        connections: most that are open at once.

    Returns:
        The limit from now on; `resource.RLIM_INFINITY` where there is none.
    """
    needed = connections + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return soft
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        log.warning("too_few_open_files", limit=allowed, connections=connections, needed=needed)
    return allowed
