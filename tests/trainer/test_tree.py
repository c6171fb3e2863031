"""Images as class folders."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from models.preprocessing import Preprocessing
from trainer.errors import DataError
from trainer.images import LabeledImages, read_image_folder
from trainer.tree import write_tree

SIZE = Preprocessing(resize=8, height=8, width=8)


@pytest.fixture
def data() -> LabeledImages:
    """Five cats and three dogs, in turns."""
    images = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return LabeledImages(images, torch.tensor([0, 1, 0, 1, 0, 1, 0, 0]), ("cat", "dog"))


def test_what_is_written_is_read_again_to_the_last_bit(data: LabeledImages, tmp_path: Path) -> None:
    assert write_tree(data, tmp_path / "tree") == 8

    read = read_image_folder(tmp_path / "tree", SIZE)
    order = data.labels.argsort(stable=True)
    assert read.classes == data.classes
    assert torch.equal(read.images, data.images[order])
    assert torch.equal(read.labels, data.labels[order])


def test_the_first_of_each_class_are_left_out_and_the_next_are_taken(data: LabeledImages, tmp_path: Path) -> None:
    assert write_tree(data, tmp_path, skip=1, per_class=3) == 5

    read = read_image_folder(tmp_path, SIZE)
    assert torch.equal(read.images, data.images[[2, 4, 6, 3, 5]])


def test_a_folder_with_something_in_it_is_left_as_it_is(data: LabeledImages, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")

    with pytest.raises(DataError, match="something lies here"):
        write_tree(data, tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["mine"]


def test_a_tree_that_was_interrupted_is_none_and_can_be_written_again(
    data: LabeledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "tree"
    saved: list[Path] = []
    save = Image.Image.save

    def disk_full(image: Image.Image, path: Path) -> None:
        if len(saved) == 6:
            raise OSError(28, "No space left on device")
        saved.append(path)
        save(image, path)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", disk_full)
        with pytest.raises(OSError, match="No space left"):
            write_tree(data, root)
    assert not list(root.iterdir())

    (root / ".partial" / "cat").mkdir(parents=True)  # as one that was killed leaves it
    (root / ".partial" / "cat" / "99999.png").touch()
    with pytest.raises(DataError, match="no class folders"):
        read_image_folder(root, SIZE)
    assert write_tree(data, root) == 8
    assert sorted(entry.name for entry in root.iterdir()) == ["cat", "dog"]
    assert len(read_image_folder(root, SIZE)) == 8


def test_more_are_left_out_than_there_are(data: LabeledImages, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no more than 3 images of dog"):
        write_tree(data, tmp_path / "tree", skip=3)
    assert write_tree(data, tmp_path / "tree", skip=2) == 4
