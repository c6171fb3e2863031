"""What is attacked: images in, scores or labels out."""

from typing import Protocol

import torch
from torch import Tensor, nn

from evaluation.draws import draws_differ
from models.defenses.defense import Defense
from models.device import Placement
from models.randomness import SeededBytes
from models.recorded.networks import LARGEST, recorded_classifier, recorded_defense
from models.recorded.replay import Function, rung

BATCH = {"cpu": 256, "cuda": LARGEST}
"""Queries that go through the networks together at most, by the kind of device: enough to keep it busy."""
PIXELS = 2**22
"""Of them together at most, so that they fit the device's memory: 1,024 images of 64x64, 83 of 224x224 on a CPU, and 64
on a GPU, which computes as many rows as the next power of two."""


class Target(Protocol):
    """A classifier behind a defense, as its clients see it.

    Attributes:
        deterministic: whether the same image always gets the same answer.
        sticky: whether that is because its draws depend on the image alone, so that another image draws anew.
        levels: what each channel of an image is rounded to on the way to it, 255 for 8 bits; none if nothing rounds.
        coarse: whether it computes in so few digits that less than a level of a pixel is mostly lost on it.
    """

    deterministic: bool
    sticky: bool
    levels: int | None
    coarse: bool

    def scores(self, images: Tensor) -> Tensor:
        """The probabilities of all classes, `(M, classes)`, for `(M, 3, H, W)` float32 in [0, 1]: M queries."""

    def labels(self, images: Tensor) -> Tensor:
        """The index of the best class, `(M,)` int64, for `(M, 3, H, W)` float32 in [0, 1]: M queries."""


class LocalTarget:
    """A classifier behind a defense, in this process, with fresh draws for every query.

    Args:
        classifier: `(N, 3, H, W)` floats in [0, 1] to logits; moved to the device.
        defense: moved to the device.
        placement: where both run, and how precisely.
        generator: a CPU generator; the draws come from it.
    """

    levels: int | None = None
    sticky = False

    def __init__(
        self,
        classifier: nn.Module,
        defense: Defense,
        placement: Placement,
        generator: torch.Generator,
    ) -> None:
        self._device = placement.device
        self._owned = (classifier.to(self._device), defense.to(self._device))
        self._served = recorded_classifier(classifier, placement), recorded_defense(defense, placement)
        self._generator = generator
        self.deterministic = not draws_differ(defense.name, defense.purifiers)
        self.coarse = placement.precision != "float32"

    @torch.inference_mode()
    def scores(self, images: Tensor) -> Tensor:
        """Each batch goes through the defense under draws of its own."""
        return torch.cat([self._ask(batch) for batch in torch.split(images, self._together(images))])

    def _together(self, images: Tensor) -> int:
        """How many of the images go through the networks at once."""
        pixels = max(1, images[0:1, 0].numel())
        most = max(1, min(BATCH[self._device.type], PIXELS // pixels))
        return most if self._device.type == "cpu" else rung(most + 1) // 2

    def labels(self, images: Tensor) -> Tensor:
        """The best class of `scores`."""
        return self.scores(images).argmax(1)

    def differentiable_scores(self, images: Tensor) -> Tensor:
        """The scores with their gradient, in float32; what only the owner of the weights can ask."""
        return self._scores(*self._owned, images.to(self._device))

    def _ask(self, images: Tensor) -> Tensor:
        return self._scores(*self._served, images.to(self._device, memory_format=torch.channels_last))

    def _scores(self, classifier: Function, defense: Function, images: Tensor) -> Tensor:
        draws = self._owned[1].draw(SeededBytes(len(images), self._generator))
        return torch.softmax(classifier(defense(images, draws)).float(), dim=1)
