"""Networks as they answer queries: on their device, in their precision, without what only training needs.

In bfloat16 the weights are cast once, here, and not again for every batch as autocast would; pixels stay float32 until
the first convolution and again from the last one on, since eight bits of mantissa cannot hold all 256 levels. In int8
the wide convolutions of the classifier compute in integers; purifiers stay in float32 (docs/decisions, 27). In float32
on a CPU some convolutions of the classifier take fewer multiplications (docs/decisions, 29).
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, fx, nn

from models.classifiers.normalization import Normalized
from models.defenses.defense import Defense
from models.device import Placement, Precision, PrecisionMissingError
from models.inference.folding import fold_batch_norms
from models.inference.int8_convolution import is_wide
from models.inference.quantization import quantize_convolutions
from models.inference.winograd import use_winograd
from models.purifier import Purifier

Network = TypeVar("Network", bound=nn.Module)


class Reduced(nn.Module):
    """A network that computes in bfloat16; takes and gives float32.

    Args:
        network: its weights are cast in place.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(torch.bfloat16)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.to(torch.bfloat16)).float()  # type: ignore[no-any-return]


class Autocast(nn.Module):
    """A network whose convolutions and products autocast computes in bfloat16; takes and gives float32.

    For programs that a user exported: their graphs may name number formats, so their weights stay as they are.

    Args:
        network: stays float32.
        device: that it runs on.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network = network
        self.device_type = device.type

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(self.device_type, torch.bfloat16):
            return self.network(images).float()  # type: ignore[no-any-return]


def classifier_for_inference(classifier: nn.Module, placement: Placement) -> nn.Module:
    """A classifier that gives the same logits, but for rounding, as fast as the device can.

    Args:
        classifier: as a bundle holds it; a program that was exported is moved to the device, others are copied.
        placement: of the copy; images and logits are float32 whatever its precision.

    Raises:
        PrecisionMissingError: as `require_precision` does.
    """
    require_precision(classifier, placement.precision)
    reduced = placement.precision == "bfloat16"
    network = _network(classifier)
    if is_exported(classifier):
        placed = _placed(classifier, placement.device)
        return Autocast(placed, placement.device) if reduced else placed
    network = fold_batch_norms(network)
    if reduced:
        network = Reduced(network)
    if placement.precision == "int8":
        quantize_convolutions(network)
    if placement.precision == "float32" and placement.device.type == "cpu":
        use_winograd(network)
    if isinstance(classifier, Normalized):
        network = Normalized(network, classifier.mean.flatten().tolist(), classifier.std.flatten().tolist())
    return _placed(network, placement.device).eval().requires_grad_(False)


def require_precision(classifier: nn.Module, precision: Precision) -> None:
    """Refuses a classifier, as a bundle holds it, that cannot be made to compute in a precision.

    Raises:
        PrecisionMissingError: it is int8, and the classifier is an exported program or has no wide convolution.
    """
    if precision != "int8":
        return
    if is_exported(classifier):
        raise PrecisionMissingError("precision int8: an exported classifier computes as it was exported")
    if not any(is_wide(module) for module in classifier.modules()):
        raise PrecisionMissingError("precision int8: the classifier has no convolution that is wide enough for it")


def is_exported(classifier: nn.Module) -> bool:
    """Whether a classifier, as a bundle holds it, is a program that its owner exported."""
    return isinstance(_network(classifier), fx.GraphModule)


def defense_for_inference(defense: Defense, placement: Placement) -> Defense:
    """A defense that transforms images in the same way, but for rounding, as fast as the device can.

    Args:
        defense: copied where its purifiers are cast, else moved to the device.
        placement: of the result; images are float32 before and after whatever its precision.
    """
    if placement.precision == "bfloat16":
        defense = copy.deepcopy(defense)
        for purifier in [module for module in defense.modules() if isinstance(module, Purifier)]:
            purifier.to(torch.bfloat16)
    return _placed(defense, placement.device)


def _network(classifier: nn.Module) -> nn.Module:
    """What is behind the normalization, if there is one."""
    return classifier.network if isinstance(classifier, Normalized) else classifier


def _placed(network: Network, device: torch.device) -> Network:
    """On the device, channels last: the order in which the pixels come, and in which convolutions are fastest."""
    placed: Network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed
