"""How much accuracy a classifier has, and how much of it is left behind each purifier and behind the pool."""

from collections.abc import Callable
from statistics import mean, stdev

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from models.bundle import Bundle
from models.defenses.puridefense import PuriDefense
from models.pool import PurifierPool
from models.purifier import Purifier
from models.randomness import SeededBytes
from trainer.adversary import LEVELS, Attack
from trainer.images import LabeledImages

BATCH = 250


class Accuracy(BaseModel):
    """Accuracies in [0, 1] on images that nothing was trained on.

    Attributes:
        images: how many there were.
        classifier: undefended.
        purifiers: behind each purifier alone, on the whole image.
        grids: behind the pool, by patches along each dimension: mean and standard deviation over the draws.
        attacked: on images attacked by way of another network, undefended, then behind the pool at the bundle's grid,
            with the mean over the draws. The first reads how well the attack carries over, the second what is restored.
        draws: passes with fresh draws over all images, for each grid.
        seed: of the draws.
    """

    model_config = ConfigDict(frozen=True)

    images: int
    classifier: float
    purifiers: dict[str, float]
    grids: dict[int, tuple[float, float]]
    attacked: tuple[float, float]
    draws: int
    seed: int


def measure(
    bundle: Bundle,
    data: LabeledImages,
    attacked: LabeledImages,
    device: torch.device,
    grids: tuple[int, ...],
    draws: int,
    seed: int = 0,
) -> Accuracy:
    """Measures a bundle, in bfloat16 as a GPU serves it.

    Args:
        bundle: moved to `device`.
        data: images that the bundle has not seen in training.
        attacked: some of them, attacked by way of another network.
        device: where it runs.
        grids: patch grids to serve the pool with.
        draws: passes over `data` for each grid, at least 2.
        seed: of the draws.
    """
    classifier = bundle.classifier.to(device)
    generator = torch.Generator().manual_seed(seed)

    def behind(purifier: Purifier) -> float:
        purifier.to(device)
        return accuracy(lambda images: classifier(purifier(images)), data, device)

    return Accuracy(
        images=len(data),
        classifier=accuracy(classifier, data, device),
        purifiers={name: behind(purifier) for name, purifier in bundle.purifiers.items()},
        grids={grid: pool_accuracy(bundle, data, grid, device, draws, generator) for grid in grids},
        attacked=(
            accuracy(classifier, attacked, device),
            pool_accuracy(bundle, attacked, bundle.manifest.pool.grid, device, draws, generator)[0],
        ),
        draws=draws,
        seed=seed,
    )


def pool_accuracy(
    bundle: Bundle, data: LabeledImages, grid: int, device: torch.device, draws: int, generator: torch.Generator
) -> tuple[float, float]:
    """Mean and standard deviation, over `draws` passes of `data`, of the accuracy behind the pool."""
    classifier = bundle.classifier.to(device)
    defense = PuriDefense(PurifierPool(bundle.purifiers).to(device), grid, bundle.manifest.pool.halo)

    def classify(images: Tensor) -> Tensor:
        logits: Tensor = classifier(defense(images, defense.draw(SeededBytes(len(images), generator))))
        return logits

    passes = [accuracy(classify, data, device) for _ in range(draws)]
    return mean(passes), stdev(passes)


def attack_images(network: nn.Module, data: LabeledImages, strength: Attack, device: torch.device) -> LabeledImages:
    """The images of `data`, each attacked by way of `network`, with a fixed seed."""
    network.to(device).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    batches = []
    for begin in range(0, len(data), BATCH):
        images = data.images[begin : begin + BATCH].to(device).float().div_(LEVELS)
        labels = data.labels[begin : begin + BATCH].to(device)
        batches.append(strength.perturb(network, images, labels, generator).mul(LEVELS).round().to(torch.uint8).cpu())
    return LabeledImages(torch.cat(batches), data.labels, data.classes)


@torch.inference_mode()
def accuracy(network: Callable[[Tensor], Tensor], data: LabeledImages, device: torch.device) -> float:
    """The share of `data` that `network`, `(N, 3, H, W)` floats in [0, 1] to logits, labels correctly, in [0, 1]."""
    correct = 0
    for begin in range(0, len(data), BATCH):
        images, labels = data.images[begin : begin + BATCH], data.labels[begin : begin + BATCH]
        with torch.autocast(device.type, torch.bfloat16):
            logits = network(images.to(device).float().div_(255))
        correct += int((logits.argmax(1).cpu() == labels).sum())
    return correct / len(data)
