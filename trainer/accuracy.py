"""How much accuracy a classifier has, and how much of it is left behind each purifier and behind the pool."""

from collections.abc import Callable
from statistics import mean, stdev

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from models.bundle import Bundle
from models.defenses.puridefense import PuriDefense
from models.pool import PurifierPool
from models.randomness import SeededBytes
from trainer.images import LabeledImages

BATCH = 250


class Accuracy(BaseModel):
    """Accuracies in [0, 1] on images that nothing was trained on.

    Attributes:
        images: how many there were.
        classifier: undefended.
        purifiers: behind each purifier alone, on the whole image.
        grids: behind the pool, by patches along each dimension: mean and standard deviation over the draws.
        draws: passes with fresh draws over all images, for each grid.
        seed: of the draws.
    """

    model_config = ConfigDict(frozen=True)

    images: int
    classifier: float
    purifiers: dict[str, float]
    grids: dict[int, tuple[float, float]]
    draws: int
    seed: int


def measure(
    bundle: Bundle, data: LabeledImages, device: torch.device, grids: tuple[int, ...], draws: int, seed: int = 0
) -> Accuracy:
    """Measures a bundle, in bfloat16 as a GPU serves it.

    Args:
        bundle: moved to `device`.
        data: images that the bundle has not seen in training.
        device: where it runs.
        grids: patch grids to serve the pool with.
        draws: passes over `data` for each grid, at least 2.
        seed: of the draws.
    """
    classifier = bundle.classifier.to(device)
    pool = PurifierPool(bundle.purifiers).to(device)
    generator = torch.Generator().manual_seed(seed)

    def behind(defense: Callable[[Tensor], Tensor]) -> float:
        return accuracy(lambda images: classifier(defense(images)), data, device)

    def pooled(grid: int) -> tuple[float, float]:
        defense = PuriDefense(pool, grid, bundle.manifest.pool.halo)

        def purify(images: Tensor) -> Tensor:
            purified: Tensor = defense(images, defense.draw(SeededBytes(len(images), generator)))
            return purified

        passes = [behind(purify) for _ in range(draws)]
        return mean(passes), stdev(passes)

    return Accuracy(
        images=len(data),
        classifier=accuracy(classifier, data, device),
        purifiers={name: behind(purifier) for name, purifier in bundle.purifiers.items()},
        grids={grid: pooled(grid) for grid in grids},
        draws=draws,
        seed=seed,
    )


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
