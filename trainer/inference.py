"""Runs a network over a data set, a batch at a time, in the precision in which the service would run it there."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.bundle import Bundle
from models.defenses.puridefense import PuriDefense
from models.device import choose_precision
from models.pool import PurifierPool
from models.randomness import SeededBytes
from trainer.adversary import LEVELS
from trainer.images import LabeledImages

BATCH = 250
PIXELS = 4_000_000
"""Most of one batch without gradients, so that large images do not fill the memory: 79 images of 224x224."""

Network = Callable[[Tensor], Tensor]


def as_served(device: torch.device) -> torch.autocast:
    """The arithmetic of the service on `device`: bfloat16 where that is native, else float32."""
    reduced = choose_precision("auto", device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=reduced)


def batch_size(data: LabeledImages, most_pixels: int) -> int:
    """How many images of `data` go through a network together: at most `BATCH`, of at most `most_pixels` pixels."""
    return max(1, min(BATCH, most_pixels // data.images[0, 0].numel()))


@torch.inference_mode()
def outputs(network: Network, data: LabeledImages, device: torch.device) -> Tensor:
    """What `network`, which lies on `device`, makes of all images: float32, on the CPU.

    Args:
        network: takes `(N, 3, H, W)` floats in [0, 1]; gives N rows of any shape.
        data: N images.
        device: where it runs.
    """
    found = []
    for batch in torch.split(data.images, batch_size(data, PIXELS)):
        images = batch.to(device, memory_format=torch.channels_last).float().div_(LEVELS)
        with as_served(device):
            found.append(network(images).float().cpu())
    return torch.cat(found)


def accuracy(logits: Tensor, data: LabeledImages) -> float:
    """The share of `data` that `(N, classes)` logits label correctly, in [0, 1]."""
    return float((logits.argmax(1) == data.labels).double().mean())


def defended(bundle: Bundle, grid: int, device: torch.device, random: torch.Generator) -> Network:
    """The classifier of a bundle behind its pool, at any grid; every call draws anew.

    Args:
        bundle: moved to `device`.
        grid: patches along each dimension.
        device: where it runs.
        random: a CPU generator, advanced by every call.
    """
    classifier = bundle.classifier.to(device)
    defense = PuriDefense(PurifierPool(bundle.purifiers).to(device), grid, bundle.manifest.pool.halo)

    def classify(images: Tensor) -> Tensor:
        logits: Tensor = classifier(defense(images, defense.draw(SeededBytes(len(images), random))))
        return logits

    return classify
