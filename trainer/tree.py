"""Images written as class folders, in which attacks and benchmarks look for theirs."""

from pathlib import Path

from PIL import Image

from trainer.errors import DataError
from trainer.images import LabeledImages


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
    """
    if root.exists() and any(root.iterdir()):
        raise DataError(f"{root}: something lies here already; name another folder")
    last = None if per_class is None else skip + per_class
    chosen = {
        name: list(enumerate(data.images[data.labels == index]))[skip:last] for index, name in enumerate(data.classes)
    }
    empty = [name for name, images in chosen.items() if not images]
    if empty:
        raise DataError(f"there are no more than {skip} images of {', '.join(empty)}")
    for name, images in chosen.items():
        (root / name).mkdir(parents=True)
        for number, image in images:
            Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(root / name / f"{number:05}.png")
    return sum(map(len, chosen.values()))
