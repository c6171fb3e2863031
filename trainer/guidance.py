"""The logits-guided term: what the served classifier makes of a purified image shall be what it makes of the clean one.

Pixel losses alone leave residuals that are small to the eye and that the classifier amplifies (Liao et al. 2018, HGD,
section 3.2). This term sees them. It looks at whole images, since a classifier knows nothing of crops.
"""

import torch
from lightning_fabric import Fabric
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional


class Guidance(BaseModel):
    """How much the classifier guides.

    Attributes:
        weight: of the KL divergence, in nats, beside a mean absolute error of pixels in [0, 1].
        images: of each sort in a batch, adversarial, noisy and clean, that it looks at.
        after: share of the steps before it begins. Guided from nothing, a purifier learns to please the classifier
            rather than to remove noise; one that has learned to remove it keeps to that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: PositiveFloat
    images: PositiveInt
    after: float = Field(default=0, ge=0, lt=1)


class Guide:
    """The classifier, frozen, that guides a purifier.

    Args:
        guidance: the settings.
        classifier: `(N, 3, H, W)` floats in [0, 1] to logits, in evaluation mode; moved to the device of `fabric`.
        fabric: where it runs; its processes share the images equally.

    Attributes:
        images: of each sort, that this process shows it.
    """

    def __init__(self, guidance: Guidance, classifier: nn.Module, fabric: Fabric) -> None:
        self.guidance = guidance
        self.classifier = classifier.to(fabric.device)
        self.fabric = fabric
        self.images = guidance.images // fabric.world_size

    def loss(self, purifier: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """The weighted KL divergence of the answers to purified `inputs` from those to `targets`.

        Args:
            purifier: in training.
            inputs: `(N, 3, H, W)` floats in [0, 1], attacked and clean.
            targets: the same images, clean.
        """
        purified = purifier(inputs)
        with self.fabric.autocast():
            with torch.no_grad():
                expected = functional.log_softmax(self.classifier(targets).float(), dim=1)
            found = functional.log_softmax(self.classifier(purified).float(), dim=1)
        divergence = functional.kl_div(found, expected, reduction="batchmean", log_target=True)
        return self.guidance.weight * divergence
