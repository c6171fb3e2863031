"""Which processes a process has begun, as Linux tells."""

from pathlib import Path

STATE, PARENT = 0, 1
ZOMBIE = "Z"


def children(pid: int) -> set[int]:
    """Its children that have not ended."""
    return {int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _parent(folder) == pid}


def processes_of_networks(pid: int) -> set[int]:
    """Those that serve a gateway, or whatever process `pid` is: forked by a server of its own."""
    return {one for server in children(pid) for one in children(server)}


def run(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    return _parent(Path(f"/proc/{pid}")) is not None


def _parent(folder: Path) -> int | None:
    """Of a process that has not ended; its name, in brackets, may hold anything."""
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[STATE] == ZOMBIE else int(fields[PARENT])
