"""Batch normalization over the whole batch, when several processes hold a part of it each.

PyTorch's `SyncBatchNorm` runs on accelerators only. This one runs wherever the process group does, so what the tests
run in two processes on a CPU is what several GPUs run.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class SharedBatchNorm2d(nn.BatchNorm2d):
    """A `BatchNorm2d` whose statistics in training are those of the parts of all processes, which are of equal size."""

    def forward(self, images: Tensor) -> Tensor:
        """Normalizes `(N, C, H, W)` by the mean and variance of N * processes images."""
        if not self.training:
            return super().forward(images)
        floats = images.float()
        mean = _mean(torch.mean(floats, dim=(0, 2, 3)))
        variance = _mean(torch.mean((floats - mean.view(1, -1, 1, 1)) ** 2, dim=(0, 2, 3)))
        self._remember(mean.detach(), variance.detach(), images.numel() // images.shape[1] * dist.get_world_size())
        scale = torch.rsqrt(variance + self.eps)
        normalized = (floats - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1)
        if self.affine:
            normalized = normalized * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return normalized.to(images.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, values: int) -> None:
        """Moves the running statistics, as PyTorch does: by the unbiased variance."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * values / max(1, values - 1), momentum)


def share_batch_norms(network: nn.Module) -> None:
    """Lets every batch norm of `network` see the batch of all processes; keeps parameters, statistics and names."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm2d


class _Sum(torch.autograd.Function):
    """The sum of a value of all processes, through which gradients flow back to all of them."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:  # noqa: ARG004 - of the interface
        return _summed(part)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return _summed(gradients[0])


def _summed(part: Tensor) -> Tensor:
    total = part.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def _mean(part: Tensor) -> Tensor:
    mean: Tensor = _Sum.apply(part) / dist.get_world_size()
    return mean
