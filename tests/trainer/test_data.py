"""Images come from CIFAR-10 as torchvision reads it, or from the user's own folders, and what is missing is told."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets.cifar
from pydantic import ValidationError
from torchvision.datasets import CIFAR10

import trainer.images
from models.preprocessing import Preprocessing
from trainer.data import CIFAR10Data, FolderData, read_splits
from trainer.errors import DataError

SIZE = Preprocessing(resize=32, height=32, width=32)
SMALL = Preprocessing(resize=12, height=12, width=12)
CLASSES = ("airplane", "frog", "truck")


def batch(labels: list[int], first: int) -> bytes:
    """A batch of CIFAR-10's own form: of images that are numbered from `first` by their color."""
    pixels = np.stack([np.full(3 * 32 * 32, first + index, np.uint8) for index in range(len(labels))])
    return pickle.dumps({"data": pixels, "labels": labels})


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny CIFAR-10 that torchvision takes for the whole one."""
    content = {
        "data_batch_1": batch([2, 0, 1, 0], 10),
        "data_batch_2": batch([1, 2, 0, 2], 14),
        "test_batch": batch([1, 0, 2], 100),
        "batches.meta": pickle.dumps({"label_names": list(CLASSES)}),
    }
    folder = tmp_path / "cifar" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    digests = {name: hashlib.md5(data).hexdigest() for name, data in content.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, digests[name]] for name in ("data_batch_1", "data_batch_2")])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", digests["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": digests["batches.meta"]})
    return tmp_path / "cifar"


def colors(images: torch.Tensor) -> list[int]:
    assert images.dtype == torch.uint8
    assert images.shape[1:] == (3, 32, 32)
    return images[:, 0, 0, 0].tolist()


def test_cifar10_is_read_sorted_by_class(archive: Path) -> None:
    data = CIFAR10Data(kind="cifar10", root=archive).read("train", SIZE)

    assert data.classes == CLASSES
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert colors(data.images) == [11, 13, 16, 12, 14, 10, 15, 17]


def test_the_test_split_of_cifar10_is_another_one_and_whole(archive: Path) -> None:
    data = CIFAR10Data(kind="cifar10", root=archive, per_class=1).read("test", SIZE)

    assert colors(data.images) == [101, 100, 102]


def test_so_many_training_images_of_each_class_of_cifar10_are_taken(archive: Path) -> None:
    data = CIFAR10Data(kind="cifar10", root=archive, per_class=2).read("train", SIZE)

    assert data.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert colors(data.images) == [11, 16, 12, 14, 10, 17]


def test_cifar10_keeps_its_channels_and_rows_apart(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3 * 32 * 32), np.uint8)
    content = pickle.dumps({"data": pixels, "labels": [1]})
    (archive / CIFAR10.base_folder / "test_batch").write_bytes(content)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", hashlib.md5(content).hexdigest()]])

    data = CIFAR10Data(kind="cifar10", root=archive).read("test", SIZE)

    assert torch.equal(data.images, torch.from_numpy(pixels).view(1, 3, 32, 32))


@pytest.mark.parametrize("failure", [URLError("no route to host"), RuntimeError("File not found or corrupted.")])
def test_a_download_that_fails_is_told_with_what_can_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", fail)

    with pytest.raises(DataError, match=r"CIFAR-10 cannot be had \(.*\); put cifar-10-python\.tar\.gz into .*--train"):
        CIFAR10Data(kind="cifar10", root=tmp_path).read("train", SIZE)


def test_cifar10_at_another_size_is_refused(archive: Path) -> None:
    with pytest.raises(DataError, match="32x32 pixels"):
        CIFAR10Data(kind="cifar10", root=archive).read("train", Preprocessing(resize=64, height=64, width=64))


def test_folders_are_read_each_for_its_purpose(tmp_path: Path, write_tree: Callable[[Path, int, int], Path]) -> None:
    folders = FolderData(
        kind="folder",
        train=write_tree(tmp_path / "train", 5, 0),
        test=write_tree(tmp_path / "test", 4, 1),
        labels=("red", "blue"),
        per_class=2,
    )

    read = read_splits(folders, ["train", "test"], SMALL)

    train, test = read["train"], read["test"]
    assert (len(train), len(test)) == (4, 8)
    assert train.classes == test.classes == ("red", "blue")
    assert train.labels.tolist() == [1, 1, 0, 0]


def test_images_to_measure_on_are_asked_for_where_none_are_named(
    tmp_path: Path, write_tree: Callable[[Path, int, int], Path]
) -> None:
    folders = FolderData(kind="folder", train=write_tree(tmp_path / "train", 2, 0))

    with pytest.raises(DataError, match=r"data\.test, or with --test"):
        read_splits(folders, ["test"], SMALL)


def test_images_are_trained_on_at_the_size_that_is_served(
    tmp_path: Path, write_tree: Callable[[Path, int, int], Path]
) -> None:
    folders = FolderData(kind="folder", train=write_tree(tmp_path / "train", 2, 0))

    read = read_splits(folders, ["train"], Preprocessing(resize=10, height=8, width=8))
    assert read["train"].images.shape[2:] == (8, 8)


def test_images_have_to_fit_in_memory_all_together_in_every_process(
    tmp_path: Path, write_tree: Callable[[Path, int, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each split has 10 images of 432 bytes."""
    tree = write_tree(tmp_path / "images", 5, 0)
    folders = FolderData(kind="folder", train=tree, test=tree)
    monkeypatch.setattr(trainer.images, "memory", lambda: 13_000)

    assert len(read_splits(folders, ["train", "test"], SMALL, processes=1)) == 2
    assert len(read_splits(folders, ["train"], SMALL, processes=2)) == 1
    with pytest.raises(DataError, match=r"^20 images of 12x12 need .* in each of 2 processes, .*take fewer images"):
        read_splits(folders, ["train", "test"], SMALL, processes=2)


def test_classes_that_are_named_twice_are_told() -> None:
    labels = ["dog", "cat", "elk", "cat", "dog", "cat"]

    with pytest.raises(ValidationError, match="two classes have the same label: cat, dog"):
        FolderData.model_validate({"kind": "folder", "train": "images", "labels": labels})
