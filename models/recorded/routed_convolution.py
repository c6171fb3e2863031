"""Convolutions whose weights each window picks for itself, so that several networks of one shape run as one.

K purifiers called one after the other launch K times as many kernels as one does, and on a GPU small kernels cost their
launch rather than their work. Here the weights of all K lie in one tensor, and whoever computes a window reads those of
its owner: as many launches as one network has, and no window is computed twice.
"""

import copy
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

RIGHT_ANSWER = 3.0
MOST_TOLD = 300
"""Characters of what a compiler says."""


def routing_problem(device: torch.device) -> str | None:
    """Why convolutions cannot be routed on a device, found out by routing one; nothing if they can.

    Triton compiles the kernel and, by a C compiler, what launches it, into `TRITON_CACHE_DIR` (`~/.triton` by default),
    from where it must be possible to load code. A compiler that is missing, or a folder that is mounted `noexec`, is no
    fault of what is served.
    """
    if find_spec("triton") is None:
        return "Triton is not installed"
    route = Route()
    route.owners = torch.zeros(1, dtype=torch.int32, device=device)
    doubling = nn.Conv2d(1, 1, 1, device="meta").to_empty(device=device).to(torch.bfloat16).requires_grad_(False)
    doubling.weight.fill_(2)
    cast("Tensor", doubling.bias).fill_(1)
    try:
        window = torch.ones(1, 1, 1, 1, dtype=torch.bfloat16, device=device)
        answer = float(RoutedConvolution([doubling], route, rectified=False)(window))
    except Exception as error:  # noqa: BLE001 - compilers, loaders and drivers fail in ways of their own
        return " ".join([type(error).__name__, *str(error).split()])[:MOST_TOLD]
    return None if answer == RIGHT_ANSWER else f"a convolution gives {answer} instead of {RIGHT_ANSWER}"


class Route:
    """Which of the networks each window of the batch in hand belongs to.

    Attributes:
        owners: `(M,)` int32 on the device of the windows; a negative one is of no network here.
    """

    owners: Tensor


class RoutedConvolution(nn.Module):
    """The convolutions of several networks at one place, as one layer.

    Takes `(M, inputs, h, w)` of the dtype of the weights; gives `(M, outputs, h, w)`, channels last, in which the
    windows of no network hold anything.

    Args:
        convolutions: of one shape, with stride 1, a bias, and zeros around as keep the size.
        route: whose weights each window is given.
        rectified: whether a ReLU follows.

    Raises:
        ValueError: one is of another kind.
    """

    def __init__(self, convolutions: Sequence[nn.Conv2d], route: Route, *, rectified: bool) -> None:
        super().__init__()
        first = convolutions[0]
        side = first.kernel_size[0]
        plain = nn.Conv2d(first.in_channels, first.out_channels, side, padding=side // 2, device="meta")
        for one in convolutions:
            if str(one) != str(plain) or not side % 2:
                raise ValueError(f"cannot be routed: {one}")
        taps = [one.weight.detach().permute(2, 3, 1, 0).flatten(0, 1) for one in convolutions]
        biases = [one.bias.detach() for one in convolutions if one.bias is not None]
        self.side = side
        self.route = route
        self.rectified = rectified
        self.register_buffer("weight", torch.stack(taps).contiguous())
        self.register_buffer("bias", torch.stack(biases))

    def forward(self, windows: Tensor) -> Tensor:
        from models.recorded.routed_kernel import convolve  # noqa: PLC0415 - needs Triton, which not every machine has

        weights, biases = cast("Tensor", self.weight), cast("Tensor", self.bias)
        return convolve(windows, weights, biases, self.route.owners, self.side, rectified=self.rectified)


def routed(networks: Sequence[Network], route: Route) -> Network:
    """A copy of the first network in which every convolution has the weights of all of them.

    Args:
        networks: of one architecture, in which the ReLU after a convolution is its neighbor in an `nn.Sequential`.
        route: whose weights each window is given; set before each call.

    Raises:
        ValueError: a convolution is of a kind that cannot be routed, or another layer has weights.
    """
    copied = copy.deepcopy(networks[0])
    parts = [dict(network.named_modules()) for network in networks]
    for path, part in list(copied.named_modules()):
        if not isinstance(part, nn.Conv2d) and _has_tensors(part):
            raise ValueError(f"cannot be routed: {part}")
        children = list(part.named_children())
        followers = [child for _, child in children[1:]] if isinstance(part, nn.Sequential) else []
        for index, (name, child) in enumerate(children):
            if not isinstance(child, nn.Conv2d):
                continue
            rectified = index < len(followers) and isinstance(followers[index], nn.ReLU)
            place = f"{path}.{name}".lstrip(".")
            convolutions = cast("list[nn.Conv2d]", [one[place] for one in parts])
            setattr(part, name, RoutedConvolution(convolutions, route, rectified=rectified))
            if rectified:
                setattr(part, children[index + 1][0], nn.Identity())
    return copied


def _has_tensors(part: nn.Module) -> bool:
    """Whether a module has weights of its own, and not only by its parts."""
    return bool([*part.parameters(recurse=False), *part.buffers(recurse=False)])
