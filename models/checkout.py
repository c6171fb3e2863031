"""The commit of the code that runs, which every result and bundle tells of."""

import subprocess
from pathlib import Path


def commit(file: Path = Path(__file__)) -> str | None:
    """The commit of the code that runs, marked if it was changed since; if it is a checkout and git is there.

    Args:
        file: of the code. Where git does not track it, as in a virtual environment inside a user's repository, the
            commit would be that of somebody else's code.
    """
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    return _git(file.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git answers; none where it fails or is not there."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
