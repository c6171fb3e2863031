"""Where the images of a run come from: CIFAR-10 by way of torchvision, or the user's own folders.

Importing torchvision takes seconds, so only those who use it pay for it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from models.bundle.manifest import repeated
from models.preprocessing import Preprocessing
from trainer.errors import DataError
from trainer.images import ImageFolder, LabeledImages, find_images, require_memory, spread_indices

Split = Literal["train", "test"]
CIFAR10_SIDE = 32


class FolderData(BaseModel):
    """Two trees of the form `ROOT/<class>/<file>`.

    Attributes:
        train: images to learn from.
        test: images to measure on, that nothing was trained on; needed only for the bundle.
        labels: the classes in the order of the classifier's logits, for a network that was trained elsewhere; the order
            of the alphabet where there is none.
        per_class: how many training images of each class; all where there is none. The paper's ImageNet pool uses 10.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["folder"]
    train: Path
    test: Path | None = None
    labels: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    per_class: PositiveInt | None = None

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        twice = repeated(labels or ())
        if twice:
            raise ValueError(f"two classes have the same label: {', '.join(twice)}")
        return labels

    def find(self, split: Split) -> ImageFolder:
        """Finds the images of one of the two.

        Raises:
            DataError: it is not there, or has others than the classes.
        """
        root, per_class = (self.train, self.per_class) if split == "train" else (self.test, None)
        if root is None:
            raise DataError("no images to measure on: name them as data.test, or with --test")
        return find_images(root, classes=self.labels or (), per_class=per_class)


class CIFAR10Data(BaseModel):
    """CIFAR-10, downloaded by torchvision the first time.

    Attributes:
        root: folder where it lies or is downloaded to.
        per_class: how many training images of each class; all 5,000 where there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["cifar10"]
    root: Path = Path("data")
    per_class: PositiveInt | None = None

    def read(self, split: Split, preprocessing: Preprocessing) -> LabeledImages:
        """Reads the training or the test split; its images are sorted by class.

        Raises:
            DataError: it cannot be downloaded or is damaged, or `preprocessing` asks for another size.
        """
        from torchvision.datasets import CIFAR10  # noqa: PLC0415

        if (preprocessing.height, preprocessing.width) != (CIFAR10_SIDE, CIFAR10_SIDE):
            raise DataError(
                "the images of CIFAR-10 have 32x32 pixels: set preprocessing.height, width and resize to 32"
            )
        try:
            found = CIFAR10(str(self.root), train=split == "train", download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"CIFAR-10 cannot be had ({error}); put cifar-10-python.tar.gz into {self.root}, or name folders of "
                "images with --train and --test"
            ) from error
        order = torch.tensor(found.targets).argsort(stable=True)
        labels = torch.tensor(found.targets)[order]
        images = torch.from_numpy(found.data).permute(0, 3, 1, 2)[order].contiguous()
        data = LabeledImages(images, labels, tuple(found.classes))
        return _limited(data, self.per_class) if split == "train" and self.per_class else data


DataRecipe = Annotated[FolderData | CIFAR10Data, Field(discriminator="kind")]


def read_splits(
    data: DataRecipe, splits: Sequence[Split], preprocessing: Preprocessing, processes: int = 1
) -> dict[Split, LabeledImages]:
    """Reads the images of a recipe.

    Args:
        data: where they come from.
        splits: which of them.
        preprocessing: the size that they are brought to.
        processes: how many hold them on this machine.

    Raises:
        DataError: they are not there, do not fit in memory together, or too many of them are damaged.
    """
    if isinstance(data, CIFAR10Data):  # both splits have 0.2 GiB
        return {split: data.read(split, preprocessing) for split in splits}
    found = {split: data.find(split) for split in splits}
    require_memory(sum(len(folder.files) for folder in found.values()), preprocessing, processes)
    return {split: folder.read(preprocessing) for split, folder in found.items()}


def _limited(data: LabeledImages, per_class: int) -> LabeledImages:
    members = [(data.labels == index).nonzero().flatten() for index in range(len(data.classes))]
    chosen = torch.cat([one[spread_indices(len(one), per_class)] for one in members])
    return LabeledImages(data.images[chosen], data.labels[chosen], data.classes)
