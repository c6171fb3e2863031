"""Where a deployment's randomness comes from; nothing that a client sends can influence or reset it."""

import os
from collections.abc import Callable

Randomness = Callable[[int], bytes]
"""Gives so many independent uniform bytes."""


def system_randomness(count: int) -> bytes:
    """Bytes from the operating system's cryptographic generator: every query draws anew."""
    return os.urandom(count)
