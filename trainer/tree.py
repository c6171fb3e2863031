"""Images written as class folders, in which attacks and benchmarks look for theirs."""

import shutil
from pathlib import Path

from PIL import Image

from trainer.errors import DataError
from trainer.images import LabeledImages

PARTIAL = ".partial"
"""Where a tree lies until it is whole, within its folder: no reader takes it for a class."""


def write_tree(data: LabeledImages, root: Path, skip: int = 0, per_class: int | None = None) -> int:
    """Writes `root/<class>/<number>.png`, the number being the place of the image among those of its class.

    Args:
        data: the images.
        root: a folder that does not exist yet, or is empty.
        skip: so many of each class are left out, from the first on.
        per_class: how many of each class at most, after these; all where there is none.

    Returns:
        How many were written.

    Raises:
        DataError: something lies in the folder already, or no image of a class is left; nothing was written.
        OSError: an image cannot be written; none is left.
    """
    if root.exists() and any(entry.name != PARTIAL for entry in root.iterdir()):
        raise DataError(f"{root}: something lies here already; name another folder")
    last = None if per_class is None else skip + per_class
    places = (data.labels == index for index in range(len(data.classes)))
    chosen = {
        name: list(enumerate(here.nonzero()[:, 0].tolist()))[skip:last]
        for name, here in zip(data.classes, places, strict=True)
    }
    empty = [name for name, images in chosen.items() if not images]
    if empty:
        raise DataError(f"there are no more than {skip} images of {', '.join(empty)}")
    partial = root / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    try:
        for name, images in chosen.items():
            _write_class(partial / name, data, images)
        for name in chosen:
            (partial / name).rename(root / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sum(map(len, chosen.values()))


def _write_class(folder: Path, data: LabeledImages, images: list[tuple[int, int]]) -> None:
    """Each image by its number in the class, and its place among all."""
    folder.mkdir(parents=True)
    for number, place in images:
        Image.fromarray(data.images[place].permute(1, 2, 0).contiguous().numpy()).save(folder / f"{number:05}.png")
