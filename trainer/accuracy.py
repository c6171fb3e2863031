"""How much accuracy a classifier has, and how much of it is left behind each purifier and behind the pool."""

from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from models.bundle import Bundle
from models.device import Precision, choose_precision
from models.purifier import Purifier
from trainer.adversary import LEVELS, Attack
from trainer.images import LabeledImages
from trainer.inference import Network, accuracy, as_served, batch_size, defended, outputs
from trainer.sampling import generator

ATTACKED_PIXELS = 256_000
"""Most of one batch with gradients: 250 images of 32x32, 5 of 224x224, for which a ResNet-50 takes about 0.5 GiB."""

AttackedBy = Literal["surrogate", "classifier"]


class Accuracy(BaseModel):
    """Accuracies in [0, 1] on images that nothing was trained on.

    Attributes:
        images: how many there were.
        precision: of the arithmetic.
        classifier: undefended.
        purifiers: behind each purifier alone, on the whole image.
        grids: behind the pool, by patches along each dimension: mean and standard deviation over the draws.
        attacked: on images attacked by way of one network, undefended, then behind the pool at the bundle's grid, with
            the mean over the draws. The first reads how well the attack works, the second what is restored.
        attacked_images: how many those were.
        attacked_by: that network: the surrogate, whose attack has to carry over, or the classifier itself where the
            recipe has no surrogate.
        attack: how they were attacked.
        draws: passes with fresh draws over all images, for each grid.
        seed: of the draws.
    """

    model_config = ConfigDict(frozen=True)

    images: int
    precision: Precision
    classifier: float
    purifiers: dict[str, float]
    grids: dict[int, tuple[float, float]]
    attacked: tuple[float, float]
    attacked_images: int
    attacked_by: AttackedBy
    attack: Attack
    draws: int
    seed: int


@dataclass(frozen=True)
class AttackedImages:
    """Images after an attack.

    Attributes:
        images: with the labels that they had before.
        by: the network by way of which they were attacked.
        attack: how.
    """

    images: LabeledImages
    by: AttackedBy
    attack: Attack


def measure(
    bundle: Bundle,
    data: LabeledImages,
    attacked: AttackedImages,
    device: torch.device,
    grids: tuple[int, ...],
    draws: int,
    seed: int = 0,
) -> Accuracy:
    """Measures a bundle, in the precision in which the service would run it on `device`.

    Args:
        bundle: moved to `device`.
        data: images that the bundle has not seen in training.
        attacked: some of them, attacked.
        device: where it runs.
        grids: patch grids to serve the pool with.
        draws: passes over `data` for each grid, at least 2.
        seed: of the draws.
    """
    classifier = bundle.classifier.to(device)
    random = torch.Generator().manual_seed(seed)

    def share(network: Network, images: LabeledImages) -> float:
        return accuracy(outputs(network, images, device), images)

    def behind(purifier: Purifier) -> float:
        purifier.to(device)
        return share(lambda images: classifier(purifier(images)), data)

    return Accuracy(
        images=len(data),
        precision=choose_precision("auto", device),
        classifier=share(classifier, data),
        purifiers={name: behind(purifier) for name, purifier in bundle.purifiers.items()},
        grids={grid: pool_accuracy(bundle, data, grid, device, draws, random) for grid in grids},
        attacked=(
            share(classifier, attacked.images),
            pool_accuracy(bundle, attacked.images, bundle.manifest.pool.grid, device, draws, random)[0],
        ),
        attacked_images=len(attacked.images),
        attacked_by=attacked.by,
        attack=attacked.attack,
        draws=draws,
        seed=seed,
    )


def pool_accuracy(
    bundle: Bundle, data: LabeledImages, grid: int, device: torch.device, draws: int, random: torch.Generator
) -> tuple[float, float]:
    """Mean and standard deviation, over `draws` passes of `data`, of the accuracy behind the pool."""
    classify = defended(bundle, grid, device, random)
    passes = [accuracy(outputs(classify, data, device), data) for _ in range(draws)]
    return mean(passes), stdev(passes)


def attack_images(network: nn.Module, data: LabeledImages, strength: Attack, device: torch.device) -> LabeledImages:
    """The images of `data`, each attacked by way of `network`, a frozen one, with a fixed seed."""
    network.to(device)
    batches = []
    count = batch_size(data, ATTACKED_PIXELS)
    for begin in range(0, len(data), count):
        images = data.images[begin : begin + count].to(device).float().div_(LEVELS)
        labels = data.labels[begin : begin + count].to(device)
        draw = strength.draw(images.shape, generator(0, "measure", begin))
        with as_served(device):
            attacked = draw.perturb(network, images, labels)
        batches.append(attacked.mul(LEVELS).round().to(torch.uint8).cpu())
    return replace(data, images=torch.cat(batches))
