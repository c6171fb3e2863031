"""Adversarial training of a classifier: Madry et al. 2018 (attacked images alone), TRADES (Zhang et al. 2019)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator
from torch import Tensor, nn
from torch.nn import functional

from trainer.adversary import Attack, AttackDraw, Objective

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Example:
    """A batch to learn from, and the attack drawn for it.

    Attributes:
        images: `(N, 3, H, W)` float32 in [0, 1].
        labels: `(N,)` int64.
        draw: of the attack on these images.
        smoothing: of the labels.
    """

    images: Tensor
    labels: Tensor
    draw: AttackDraw
    smoothing: float


class MadryTraining(BaseModel):
    """Cross-entropy of attacked images alone (Madry et al. 2018, equation 2.1).

    Attributes:
        attack: on the network as it is, in each step; PGD in the paper.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["madry"]
    attack: Attack

    def attack_images(self, network: nn.Module, example: Example) -> Tensor:
        """Images that raise the cross-entropy of `network`, which sees them in evaluation mode."""

        def loss(logits: Tensor) -> Tensor:
            return functional.cross_entropy(logits, example.labels, reduction="sum")

        return _attacked(network, example, loss)

    def loss(self, network: Network, example: Example, attacked: Tensor) -> Tensor:
        """What is minimized."""
        return functional.cross_entropy(network(attacked).float(), example.labels, label_smoothing=example.smoothing)


class TradesTraining(BaseModel):
    """Cross-entropy of clean images, and `beta` times how far attacked ones move the answer (Zhang et al. 2019, eq. 5).

    Attributes:
        attack: moves the answer of the network as it is, in each step.
        beta: weight of robustness against accuracy; 6 in the paper.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["trades"]
    attack: Attack
    beta: PositiveFloat = 6.0

    @model_validator(mode="after")
    def _random_start(self) -> Self:
        if self.attack.kind != "pgd":
            raise ValueError("trades needs a pgd attack: on the clean image itself its gradient is zero")
        return self

    def attack_images(self, network: nn.Module, example: Example) -> Tensor:
        """Images that move the answers of `network` away from those on the clean ones."""
        network.eval()
        with torch.no_grad():
            clean = functional.log_softmax(network(example.images).float(), dim=1)

        def loss(logits: Tensor) -> Tensor:
            return _divergence(clean, logits, "sum")

        return _attacked(network, example, loss)

    def loss(self, network: Network, example: Example, attacked: Tensor) -> Tensor:
        """What is minimized; both halves go through the network, and its batch norms, together."""
        clean, moved = network(torch.cat([example.images, attacked])).float().chunk(2)
        natural = functional.cross_entropy(clean, example.labels, label_smoothing=example.smoothing)
        return natural + self.beta * _divergence(functional.log_softmax(clean, dim=1), moved, "batchmean")


AdversarialTraining = Annotated[MadryTraining | TradesTraining, Field(discriminator="method")]


def _attacked(network: nn.Module, example: Example, loss: Objective) -> Tensor:
    network.eval()
    attacked = example.draw.climb(network, example.images, loss)
    network.train()
    return attacked


def _divergence(expected: Tensor, logits: Tensor, reduction: str) -> Tensor:
    """KL divergence of the answer in `logits` from the `expected` log-probabilities."""
    found = functional.log_softmax(logits, dim=1)
    return functional.kl_div(found, expected, reduction=reduction, log_target=True)
