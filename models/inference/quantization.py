"""The wide convolutions of a network replaced by those of 8-bit integers."""

import torch
from torch import fx, nn
from torch.nn import functional

from models.inference.int8_convolution import Int8Convolution, is_wide

RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid)
RECTIFYING = (functional.relu, functional.relu_, functional.relu6, torch.relu, torch.relu_, torch.sigmoid)
RECTIFYING_METHODS = ("relu", "relu_", "sigmoid")
KEEPERS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout, nn.Identity)
KEEPING = (functional.max_pool2d, functional.avg_pool2d, functional.adaptive_avg_pool2d, functional.dropout, torch.cat)
"""These give no negative number where they are given none."""


def quantize_convolutions(network: nn.Module) -> int:
    """Replaces the wide convolutions of a network, in place.

    Args:
        network: in float32 and evaluation mode, on the CPU. If it is a graph, its convolutions that see no negative
            numbers are found, and keep one more bit.

    Returns:
        How many were replaced.
    """
    rectified = _rectified(network) if isinstance(network, fx.GraphModule) else set()
    wide = [(name, module) for name, module in network.named_modules(remove_duplicate=False) if is_wide(module)]
    for name, module in wide:
        assert isinstance(module, nn.Conv2d)
        network.set_submodule(name, Int8Convolution(module, signed=name not in rectified))
    return len(wide)


def _rectified(graph: fx.GraphModule) -> set[str]:
    """The modules that are never given a negative number, by name."""
    positive: set[fx.Node] = set()
    calls: dict[str, list[bool]] = {}
    modules = dict(graph.named_modules(remove_duplicate=False))
    for node in graph.graph.nodes:
        before = node.all_input_nodes
        kept = bool(before) and all(one in positive for one in before)
        if node.op == "call_module":
            calls.setdefault(str(node.target), []).append(kept)
            rectifies, keeps = isinstance(modules[node.target], RECTIFIERS), isinstance(modules[node.target], KEEPERS)
        else:
            rectifies = node.target in (RECTIFYING_METHODS if node.op == "call_method" else RECTIFYING)
            keeps = node.op == "call_function" and node.target in KEEPING
        if rectifies or (keeps and kept):
            positive.add(node)
    return {name for name, kept in calls.items() if all(kept)}
