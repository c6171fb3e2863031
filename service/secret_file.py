"""Secrets that lie in files, so that no environment and no command line tells them."""

from pathlib import Path


class SecretError(Exception):
    """A secret cannot be read; the message says why, and not what it is."""


def read_secret(path: Path, min_bytes: int = 1) -> bytes:
    """The contents of a secret's file, without white space around them.

    Args:
        path: of the file.
        min_bytes: that a secret of its kind has at least.

    Raises:
        SecretError: the file cannot be read, or holds too little.
    """
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise SecretError(f"{path}: {error.strerror}") from error
    if len(secret) < min_bytes:
        raise SecretError(f"{path}: {len(secret)} bytes are too few for a secret; it needs {min_bytes}")
    return secret
