"""Labeled images in memory: an ImageFolder tree read into one uint8 tensor."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import functional as transforms


@dataclass(frozen=True)
class LabeledImages:
    """A data set that fits in memory.

    Attributes:
        images: `(N, 3, size, size)` uint8.
        labels: `(N,)` int64, indices into `classes`.
        classes: the names of the classes, by index.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> "LabeledImages":
        """The first `count` images, spread evenly over the set (whose files lie sorted by class)."""
        chosen = torch.linspace(0, len(self) - 1, min(count, len(self))).round().long()
        return LabeledImages(self.images[chosen], self.labels[chosen], self.classes)


def read_image_folder(root: Path, size: int) -> LabeledImages:
    """Reads `root/<class>/<file>`; every image has its shorter side scaled to `size`, then its center cropped.

    Raises:
        FileNotFoundError: `root` is not a folder of class folders with images in them.
        PIL.UnidentifiedImageError: a file is not an image.
    """
    tree = ImageFolder(str(root))

    def read(path: str) -> Tensor:
        with Image.open(path) as file:
            image = file.convert("RGB")
        if image.size != (size, size):
            image = transforms.center_crop(transforms.resize(image, [size], antialias=True), [size, size])
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    with ThreadPoolExecutor() as workers:
        images = torch.stack(list(workers.map(read, (path for path, _ in tree.samples), chunksize=64)))
    return LabeledImages(images, torch.tensor(tree.targets), tuple(tree.classes))
