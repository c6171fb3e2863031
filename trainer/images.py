"""Labeled images in memory: an ImageFolder tree read into one uint8 tensor."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder

from models.preprocessing import Preprocessing


@dataclass(frozen=True)
class LabeledImages:
    """A data set that fits in memory.

    Attributes:
        images: `(N, 3, height, width)` uint8.
        labels: `(N,)` int64, indices into `classes`.
        classes: the names of the classes, by index.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def spread(self, count: int) -> "LabeledImages":
        """`count` images spread evenly over the set, whose files lie sorted by class; all if there are fewer."""
        chosen = spread_indices(len(self), count)
        return LabeledImages(self.images[chosen], self.labels[chosen], self.classes)


def spread_indices(total: int, count: int) -> Tensor:
    """At most `count` indices, spread evenly over `total`."""
    return torch.linspace(0, total - 1, min(count, total)).round().long()


def read_image_folder(root: Path, preprocessing: Preprocessing) -> LabeledImages:
    """Reads `root/<class>/<file>`, each image as the service would.

    Raises:
        FileNotFoundError: `root` is not a folder of class folders with images in them.
        PIL.UnidentifiedImageError: a file is not an image.
    """
    tree = ImageFolder(str(root))

    def read(path: str) -> Tensor:
        with Image.open(path) as file:
            pixels = preprocessing.apply(file)
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)

    with ThreadPoolExecutor() as workers:
        images = torch.stack(list(workers.map(read, (path for path, _ in tree.samples), chunksize=64)))
    return LabeledImages(images, torch.tensor(tree.targets), tuple(tree.classes))
