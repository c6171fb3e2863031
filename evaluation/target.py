"""What is attacked: images in, scores or labels out."""

from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from models.defenses.defense import Defense
from models.randomness import SeededBytes

Network = TypeVar("Network", bound=nn.Module)
BATCH = 256


class Target(Protocol):
    """A classifier behind a defense, as its clients see it.

    Attributes:
        deterministic: whether the same image always gets the same answer.
        levels: what each channel of an image is rounded to on the way to it, 255 for 8 bits; none if nothing rounds.
    """

    deterministic: bool
    levels: int | None

    def scores(self, images: Tensor) -> Tensor:
        """The probabilities of all classes, `(M, classes)`, for `(M, 3, H, W)` float32 in [0, 1]: M queries."""

    def labels(self, images: Tensor) -> Tensor:
        """The index of the best class, `(M,)` int64, for `(M, 3, H, W)` float32 in [0, 1]: M queries."""


class LocalTarget:
    """A classifier behind a defense, in this process, with fresh draws for every query.

    Args:
        classifier: `(N, 3, H, W)` floats in [0, 1] to logits; moved to the device.
        defense: moved to the device.
        device: where both run.
        precision: `float32` or `bfloat16`.
        generator: a CPU generator; the draws come from it.
    """

    levels: int | None = None

    def __init__(
        self,
        classifier: nn.Module,
        defense: Defense,
        device: torch.device,
        precision: str,
        generator: torch.Generator,
    ) -> None:
        self._classifier = _placed(classifier, device)
        self._defense = _placed(defense, device)
        self._device = device
        self._reduced = precision == "bfloat16"
        self._generator = generator
        self.deterministic = defense.draw(SeededBytes(1, torch.Generator())).shape[1] == 0

    @torch.inference_mode()
    def scores(self, images: Tensor) -> Tensor:
        """Each batch goes through the defense under draws of its own."""
        return torch.cat([self._ask(images[begin : begin + BATCH]) for begin in range(0, len(images), BATCH)])

    def labels(self, images: Tensor) -> Tensor:
        """The best class of `scores`."""
        return self.scores(images).argmax(1)

    def differentiable_scores(self, images: Tensor) -> Tensor:
        """The scores with their gradient, in float32; what only the owner of the weights can ask."""
        draws = self._defense.draw(SeededBytes(len(images), self._generator))
        logits = self._classifier(self._defense(images.to(self._device), draws))
        return torch.softmax(logits.float(), dim=1)

    def _ask(self, images: Tensor) -> Tensor:
        draws = self._defense.draw(SeededBytes(len(images), self._generator))
        images = images.to(self._device, memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._reduced):
            logits = self._classifier(self._defense(images, draws))
        return torch.softmax(logits.float(), dim=1)


def _placed(network: Network, device: torch.device) -> Network:
    placed: Network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed
