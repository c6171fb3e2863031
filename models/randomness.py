"""The randomness of a defense comes from outside, as bytes: a defense never owns a generator that could be reset.

A deployment passes bytes of the operating system, an evaluation seeded ones; the defense cannot tell.
"""

from collections.abc import Callable

import torch
from torch import Tensor

RandomBytes = Callable[[int], Tensor]
"""Gives `(N, count)` independent uniform uint8, on the CPU, for the N queries of one batch: a row a query."""

WORD_BYTES = 8
SIGN_BIT_MASK = 2**63 - 1


def uniform_indices(random_bytes: RandomBytes, count: int, bound: int) -> Tensor:
    """Draws `(N, count)` int64, independent and uniform in [0, bound).

    Each is a 63-bit word modulo `bound`, so no probability differs from 1/bound by more than bound / 2**63.

    Raises:
        ValueError: `bound` is not positive.
    """
    if bound < 1:
        raise ValueError(f"cannot draw below {bound}")
    words = random_bytes(WORD_BYTES * count).contiguous().view(torch.int64)
    return (words & SIGN_BIT_MASK) % bound


class SeededBytes:
    """Repeatable bytes for tests and evaluation; never for a deployment.

    Args:
        queries: N, the rows of every draw.
        generator: a CPU generator, advanced by every draw.
    """

    def __init__(self, queries: int, generator: torch.Generator) -> None:
        self.queries = queries
        self.generator = generator

    def __call__(self, count: int) -> Tensor:
        """Draws `(N, count)` uint8."""
        return torch.randint(256, (self.queries, count), dtype=torch.uint8, generator=self.generator)
