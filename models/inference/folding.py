"""Batch norms folded into the convolutions before them: what a trained network no longer needs of them.

In evaluation mode a batch norm is a scale and a shift of each channel. A convolution whose output only the batch norm
reads can take them into its own weights, and one pass over the features is saved (Jacob et al. 2018, section 3.2).
"""

import copy
import threading
from collections.abc import Callable
from typing import Any

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class OwnThreadTracer(fx.Tracer):
    """Traces what its own thread calls.

    While it traces, `torch.fx` redirects the calls of all modules to it, in every thread: those of networks that answer
    queries meanwhile are passed on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Called in place of a module."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Called in place of a module's attribute."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """A copy of `network`, in evaluation mode, without the batch norms that follow a convolution.

    A network that `torch.fx` cannot trace is copied as it is: whoever wrote it may branch on what it sees.
    """
    folded = copy.deepcopy(network).eval()
    try:
        graph = fx.GraphModule(folded, OwnThreadTracer().trace(folded), type(folded).__name__)
    except Exception:  # noqa: BLE001 - the network's own code runs, on symbols that it may not expect
        return folded
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        convolution, norm = _pair(node, modules)
        if convolution is not None and norm is not None:
            before = node.args[0]
            modules[before.target] = fused = fuse_conv_bn_eval(convolution, norm)  # another norm may follow
            graph.set_submodule(before.target, fused)
            node.replace_all_uses_with(before)
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def _pair(node: fx.Node, modules: dict[str, nn.Module]) -> tuple[nn.Conv2d | None, nn.BatchNorm2d | None]:
    """The convolution and the batch norm, if `node` is one that alone reads a convolution which is called once."""
    norm = _module(node, modules)
    before = node.args[0] if node.args else None
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_var is None or not isinstance(before, fx.Node):
        return None, None
    convolution = _module(before, modules)
    calls = [other for other in node.graph.nodes if _reads(other, str(before.target))]
    if not isinstance(convolution, nn.Conv2d) or len(before.users) > 1 or len(calls) > 1:
        return None, None
    return convolution, norm


def _reads(node: fx.Node, target: str) -> bool:
    """Whether a node calls the module or takes something out of it."""
    return (node.op == "call_module" and node.target == target) or (
        node.op == "get_attr" and str(node.target).startswith(f"{target}.")
    )


def _module(node: fx.Node, modules: dict[str, nn.Module]) -> nn.Module | None:
    return modules.get(str(node.target)) if node.op == "call_module" else None
