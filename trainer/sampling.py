"""Randomness that depends on nothing but a seed, a purpose and a step, so that a run can go on at any step.

No generator lives longer than one step: there is none to store in a checkpoint, none to lose with a process, and none
that differs between the processes of one run.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

SEED_BYTES = 8
SIGN_BIT_MASK = 2**63 - 1


def step_seed(seed: int, purpose: str, number: int) -> int:
    """The seed, in [0, 2**63), of what is drawn for one purpose at one step (or epoch)."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:SEED_BYTES], "big") & SIGN_BIT_MASK


def generator(seed: int, purpose: str, number: int) -> torch.Generator:
    """A CPU generator for one purpose at one step (or epoch); the same arguments give the same numbers everywhere."""
    return torch.Generator().manual_seed(step_seed(seed, purpose, number))


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seeds the global generators, of the CPU and of `device`, for code that takes no other; puts them back after."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class Epochs:
    """Batches that see every image once an epoch, in an order of its own for each epoch; the rest of one is dropped.

    Args:
        images: how many there are.
        batch: how many make one batch, at most `images`.
        seed: of the orders.
    """

    def __init__(self, images: int, batch: int, seed: int) -> None:
        self.images = images
        self.batch = batch
        self.seed = seed
        self.steps = images // batch
        self._order = (-1, torch.empty(0, dtype=torch.int64))

    def indices(self, step: int) -> Tensor:
        """`(batch,)` int64: the images of a step, counted from 0 over all epochs."""
        epoch, position = divmod(step, self.steps)
        if self._order[0] != epoch:
            self._order = (epoch, torch.randperm(self.images, generator=generator(self.seed, "order", epoch)))
        return self._order[1][position * self.batch : (position + 1) * self.batch]
