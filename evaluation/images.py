"""The images that are attacked: some of an ImageFolder tree, as the service would see them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.datasets import ImageFolder

from evaluation.errors import EvaluationError
from models.preprocessing import Preprocessing

LEVELS = 255


@dataclass(frozen=True)
class Sample:
    """Images with their labels and their places in the tree.

    Attributes:
        images: `(N, 3, H, W)` float32 in [0, 1].
        labels: `(N,)` int64, indices into the labels of what is attacked.
        indices: N, of the files in the sorted tree.
        tree_sha256: of the names and sizes of all files of the tree; none if there is no tree.
    """

    images: Tensor
    labels: Tensor
    indices: tuple[int, ...]
    tree_sha256: str | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def part(self, begin: int, end: int) -> "Sample":
        """The images from `begin` up to `end`."""
        return Sample(self.images[begin:end], self.labels[begin:end], self.indices[begin:end], self.tree_sha256)

    def fingerprint(self) -> str:
        """SHA-256 of the 8-bit pixels and the labels."""
        pixels = (self.images * LEVELS).round().to(torch.uint8).contiguous()
        return hashlib.sha256(pixels.numpy().tobytes() + self.labels.numpy().tobytes()).hexdigest()


def read_sample(root: Path, known: tuple[str, ...], preprocessing: Preprocessing, count: int) -> Sample:
    """Reads `count` images of `root/<label>/<file>`, spread evenly over the classes; all if there are fewer.

    The first n of a sample are spread over the classes, too, so that a smaller run is a part of a larger one.

    Args:
        root: of the tree.
        known: the labels of what is attacked, by index.
        preprocessing: to its input.
        count: how many images.

    Raises:
        EvaluationError: `root` is not such a tree, a folder is none of the known labels, or a file is no image.
    """
    try:
        tree = ImageFolder(str(root))
    except FileNotFoundError as error:
        raise EvaluationError(f"{root}: {error}") from error
    unknown = sorted(set(tree.classes) - set(known))
    if unknown:
        raise EvaluationError(f"{root}: what is attacked has no label {', '.join(unknown)}")
    chosen = _by_turns(tree.targets)[:count]
    images = [_read(Path(tree.samples[index][0]), preprocessing) for index in chosen]
    labels = [known.index(tree.classes[tree.targets[index]]) for index in chosen]
    return Sample(torch.stack(images), torch.tensor(labels), tuple(chosen), _tree_sha256(root, tree))


def _tree_sha256(root: Path, tree: ImageFolder) -> str:
    digest = hashlib.sha256()
    for path, _ in tree.samples:
        digest.update(f"{Path(path).relative_to(root).as_posix()} {Path(path).stat().st_size}\n".encode())
    return digest.hexdigest()


def _by_turns(targets: list[int]) -> list[int]:
    """Indices such that each class has its turn: the first files of all classes, then the second ones."""
    seen: dict[int, int] = {}
    turns = []
    for index, target in enumerate(targets):
        seen[target] = seen.get(target, 0) + 1
        turns.append((seen[target], index))
    return [index for _, index in sorted(turns)]


def _read(path: Path, preprocessing: Preprocessing) -> Tensor:
    try:
        with Image.open(path) as file:
            pixels = preprocessing.apply(file)
    except UnidentifiedImageError as error:
        raise EvaluationError(str(error)) from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / LEVELS
