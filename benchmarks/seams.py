"""Seams: how visible the borders of patches are, by halo, on real images.

    python -m benchmarks.seams --images TREE --count 500

For each halo, in units of 1/255, over all images and seed-fixed draws:

- border: how far one purifier's result by patches is from its result on the whole image, at the pixels that touch a
  vertical seam: what the halo is there to remove.
- jump: how much larger the step across a vertical seam is after random purification than before it: what mixing
  purifiers adds, which no halo removes.
"""

from pathlib import Path
from statistics import mean
from typing import Annotated

import torch
import typer
from torch import Tensor

from models.bundle import read_bundle
from models.defenses.puridefense import PuriDefense
from models.pool import PurifierPool
from models.randomness import SeededBytes
from service.settings import embedded_bundle
from trainer.images import read_image_folder

HALOS = (0, 1, 2, 3, 4, 8)
GRIDS = (2, 3)
LEVELS = 255
SEED = 0


def main(
    images: Annotated[Path, typer.Option(help="ImageFolder tree.")],
    count: Annotated[int, typer.Option(help="How many of its images, spread evenly over it.")] = 500,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle; the embedded one by default.")] = None,
) -> None:
    """Prints a Markdown table."""
    served = read_bundle(bundle or embedded_bundle())
    data = read_image_folder(images, served.manifest.preprocessing).spread(count)
    pixels = data.images.float().div_(LEVELS)
    pool = PurifierPool(served.purifiers)
    typer.echo("| grid | halo | work | border | jump |\n| --- | --- | --- | --- | --- |")
    with torch.inference_mode():
        for grid in GRIDS:
            for halo in HALOS:
                defense = PuriDefense(pool, grid, halo)
                row = (f"{grid}x{grid}", halo, work(defense, pixels), border(defense, pixels), jump(defense, pixels))
                typer.echo("| {} | {} | {:.2f} | {:.3f} | {:.3f} |".format(*row))


def work(defense: PuriDefense, images: Tensor) -> float:
    """Pixels that go through purifiers, over pixels of the image."""
    patches = defense.patches(images)
    return patches.patches * patches.rows.window * patches.columns.window / (images.shape[2] * images.shape[3])


def border(defense: PuriDefense, images: Tensor) -> float:
    """Mean absolute difference to whole-image purification at the pixels on both sides of a seam, over purifiers."""
    seams = _seams(defense, images)
    beside = torch.tensor([column for seam in seams for column in (seam - 1, seam)])
    differences = []
    for index, purifier in enumerate(defense.pool.purifiers):
        draws = torch.full((len(images), defense.grid**2), index)
        differences.append((defense(images, draws) - purifier(images))[..., beside].abs().mean().item())
    return float(LEVELS * mean(differences))


def jump(defense: PuriDefense, images: Tensor) -> float:
    """Mean absolute step across a seam after purification, less the same before."""
    draws = defense.draw(SeededBytes(len(images), torch.Generator().manual_seed(SEED)))
    purified = defense(images, draws)
    seams = torch.tensor(_seams(defense, images))
    before, after = ((one[..., seams] - one[..., seams - 1]).abs().mean() for one in (images, purified))
    return LEVELS * float(after - before)


def _seams(defense: PuriDefense, images: Tensor) -> tuple[int, ...]:
    return defense.patches(images).columns.edges[1:-1]


if __name__ == "__main__":
    typer.run(main)
