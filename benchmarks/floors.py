"""Floors: the least time that a machine needs for what networks compute and move.

Its rates are those of a product of matrices and of a copy.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.bundle import Bundle
from models.patches import PatchGrid
from trainer.cost import count_cost

SIDE = 1024
COPIED = 2**26
"""Floats, 256 MiB: far more than a cache holds."""
TRIES = 7
FLOAT_BYTES = 4
GIGA = 1e9
MILLI = 1e-3


@dataclass(frozen=True)
class Rates:
    """What one thread reaches, at best, in float32.

    Attributes:
        gigaflops: a second, in a product of two square matrices; a multiplication and an addition are two.
        gigabytes: read and written a second, in a copy.
    """

    gigaflops: float
    gigabytes: float

    @classmethod
    def measured(cls) -> "Rates":
        """On this machine, now; sets the number of torch's threads to one."""
        torch.set_num_threads(1)
        left, right, source = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE), torch.rand(COPIED)
        product, copy = torch.empty(SIDE, SIDE), torch.empty(COPIED)
        return cls(
            2 * SIDE**3 / _fastest(lambda: torch.mm(left, right, out=product)) / GIGA,
            2 * COPIED * FLOAT_BYTES / _fastest(lambda: copy.copy_(source)) / GIGA,
        )


@dataclass(frozen=True)
class Work:
    """What networks do for an image.

    Attributes:
        gigaflops: multiplications and additions, as those of plain convolutions are counted.
        feature_bytes: that the layers read and write if nothing stays in a cache.
        weight_bytes: that each batch reads, whatever its size.
    """

    gigaflops: float
    feature_bytes: float
    weight_bytes: float

    def floors_ms(self, rates: Rates, batch: float) -> dict[str, float]:
        """Processor time of an image in a batch of so many: of what is computed, and of what is moved."""
        moved = self.feature_bytes + self.weight_bytes / batch
        return {
            "computing": self.gigaflops / rates.gigaflops / MILLI,
            "moving": moved / (rates.gigabytes * GIGA) / MILLI,
        }


@torch.inference_mode()
def undefended_work(bundle: Bundle) -> Work:
    """The classifier's."""
    size = bundle.manifest.preprocessing
    moved = traffic(bundle.classifier, torch.rand(1, 3, size.height, size.width))
    weights = sum(one.numel() * one.element_size() for one in bundle.classifier.parameters())
    return Work(count_cost(bundle).classifier / GIGA, moved, weights)


@torch.inference_mode()
def defended_work(bundle: Bundle) -> Work:
    """The classifier's and that of the pool, whose purifiers have an equal share each."""
    bare, manifest = undefended_work(bundle), bundle.manifest
    patches = PatchGrid(
        manifest.preprocessing.height, manifest.preprocessing.width, manifest.pool.grid, manifest.pool.halo
    )
    windows = torch.rand(patches.patches, 3, patches.rows.window, patches.columns.window)
    purifiers = list(bundle.purifiers.values())
    moved = sum(traffic(one, windows) for one in purifiers) / len(purifiers)
    weights = sum(each.numel() * each.element_size() for one in purifiers for each in one.parameters())
    pool = count_cost(bundle).pool / GIGA
    return Work(bare.gigaflops + pool, bare.feature_bytes + moved, bare.weight_bytes + weights)


def traffic(network: nn.Module, images: Tensor) -> float:
    """Bytes that the innermost modules of a network read and write on the way of `images`."""
    moved: list[int] = []

    def note(_module: nn.Module, inputs: Any, output: Any) -> None:
        tensors = [one for one in (*inputs, output) if isinstance(one, Tensor)]
        moved.append(sum(one.numel() * one.element_size() for one in tensors))

    hooks = [module.register_forward_hook(note) for module in network.modules() if not [*module.children()]]
    try:
        network.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
    return float(sum(moved))


def _fastest(work: Callable[[], object]) -> float:
    def seconds() -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    return min(seconds() for _ in range(TRIES))
