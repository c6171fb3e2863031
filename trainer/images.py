"""Labeled images in memory, as one uint8 tensor, and how a folder of class folders becomes one."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.preprocessing import Preprocessing
from trainer.errors import DataError
from trainer.memory import memory

MOST_DAMAGED = 0.01
"""Share of files that may be damaged; more of them is a fault of the copy, not of a few files."""
SHOWN = 10
MEMORY_SHARE = 0.7
DAMAGED = (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError)
"""What Pillow raises on damaged files; RuntimeError is its AVIF decoder's."""

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@dataclass(frozen=True)
class LabeledImages:
    """A data set that fits in memory.

    Attributes:
        images: `(N, 3, height, width)` uint8.
        labels: `(N,)` int64, indices into `classes`.
        classes: the names of the classes, by index.
        skipped: files that could not be read.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of pixels and labels, in order, and of the classes."""
        digest = hashlib.sha256(repr(self.classes).encode())
        digest.update(self.images.contiguous().numpy().data)
        digest.update(self.labels.numpy().data)
        return digest.hexdigest()

    def spread(self, count: int) -> "LabeledImages":
        """`count` images spread evenly over the set, whose files lie sorted by class; all if there are fewer."""
        chosen = spread_indices(len(self), count)
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])


def spread_indices(total: int, count: int) -> Tensor:
    """At most `count` indices, spread evenly over `total`."""
    return torch.linspace(0, total - 1, min(count, total)).round().long()


@dataclass(frozen=True)
class ImageFolder:
    """A tree of the form `root/<class>/<file>`, whose images are not read yet.

    Attributes:
        root: of the tree.
        classes: the names of the classes, by index.
        files: the images, each with the index of its class.
    """

    root: Path
    classes: tuple[str, ...]
    files: tuple[tuple[Path, int], ...]

    def read(self, preprocessing: Preprocessing) -> LabeledImages:
        """Reads each image as the service would.

        Raises:
            DataError: more than 1 % of the files are damaged.
        """
        files = self.files
        images = np.empty((len(files), 3, preprocessing.height, preprocessing.width), np.uint8)
        with ThreadPoolExecutor() as workers:
            whole = list(workers.map(lambda file, into: _read(file[0], preprocessing, into), files, images))
        read = zip(files, whole, strict=True)
        damaged = tuple(str(path.relative_to(self.root)) for (path, _), good in read if not good)
        if len(damaged) > MOST_DAMAGED * len(files):
            told = f"{len(damaged)} of {len(files)} files are damaged, over 1 %: {_listed(damaged)}"
            raise DataError(f"{self.root}: {told}")
        kept = [index for index, good in enumerate(whole) if good]
        labels = torch.tensor([files[index][1] for index in kept])
        return LabeledImages(torch.from_numpy(_closed_up(images, kept)), labels, self.classes, damaged)


def find_images(root: Path, *, classes: Sequence[str] = (), per_class: int | None = None) -> ImageFolder:
    """Finds the images of `root/<class>/<file>`, also those in folders below a class.

    Hidden files and folders are left out; systems and tools keep copies of images in them.

    Args:
        root: of the tree.
        classes: names of all classes, in the order of the classifier's logits, where that is not the order of the
            alphabet or a class has no images here.
        per_class: how many images of each class, spread evenly over its sorted files; all of them where there is none.

    Raises:
        DataError: `root` has no class folders with images in them, or others than `classes`.
    """
    names = _class_folders(root)
    strangers = sorted(set(names) - set(classes)) if classes else []
    if strangers:
        raise DataError(f"{root}: folders that are none of the classes: {_listed(strangers)}")
    indices = {name: index for index, name in enumerate(classes or names)}
    files = tuple((path, indices[name]) for name in names for path in _images(root / name, per_class))
    return ImageFolder(root, tuple(indices), files)


def read_image_folder(
    root: Path, preprocessing: Preprocessing, *, classes: Sequence[str] = (), per_class: int | None = None
) -> LabeledImages:
    """Finds and reads the images of one tree; the arguments are those of `find_images`.

    Raises:
        DataError: as `find_images`, `require_memory` and `ImageFolder.read` do.
    """
    found = find_images(root, classes=classes, per_class=per_class)
    require_memory(len(found.files), preprocessing)
    return found.read(preprocessing)


def require_memory(count: int, preprocessing: Preprocessing, processes: int = 1) -> None:
    """Checks that images fit in memory; each process holds all of them, once: each is read into its place.

    Args:
        count: how many images.
        preprocessing: gives their size.
        processes: how many share the memory.

    Raises:
        DataError: they do not fit.
    """
    needed = count * 3 * preprocessing.height * preprocessing.width
    there = memory()
    if processes * needed > MEMORY_SHARE * there:
        each = f" in each of {processes} processes" if processes > 1 else ""
        raise DataError(
            f"{count} images of {preprocessing.width}x{preprocessing.height} need {needed / 2**30:.1f} GiB of memory"
            f"{each}, there are {there / 2**30:.1f} in all; take fewer images (training images: data.per_class)"
        )


def _class_folders(root: Path) -> list[str]:
    try:
        names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{root}: {error.strerror}") from error
    if not names:
        raise DataError(f"{root}: no class folders here; images lie in ROOT/<class>/<file>")
    return names


def _images(folder: Path, most: int | None) -> Iterator[Path]:
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}  # not only saved
    seen = (path for path in folder.rglob("*") if not _hidden(path.relative_to(folder)))
    files = sorted(path for path in seen if path.suffix.lower() in known and path.is_file())
    if not files:
        raise DataError(f"{folder}: no images here; they are recognized by their names, such as .jpg, .png or .webp")
    for index in spread_indices(len(files), most or len(files)).tolist():
        yield files[index]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _read(path: Path, preprocessing: Preprocessing, into: Pixels) -> bool:
    """Reads a file into `(3, height, width)` uint8; tells whether it is whole."""
    try:
        with Image.open(path) as file:
            into[:] = preprocessing.apply(file).transpose(2, 0, 1)
    except DAMAGED:
        return False
    return True


def _closed_up(images: Pixels, kept: Sequence[int]) -> Pixels:
    """The images that are kept, in order; moved in place, where indexing would hold a second copy for a moment."""
    for place, index in enumerate(kept):
        if place != index:
            images[place] = images[index]
    return images[: len(kept)]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
