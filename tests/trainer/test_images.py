"""An ImageFolder tree becomes one tensor, in order, at one size."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from models.preprocessing import Preprocessing
from trainer.images import LabeledImages, read_image_folder


def save(path: Path, pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def gray(level: int, height: int = 4, width: int = 4) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    return np.full((height, width, 3), level, np.uint8)


def test_a_tree_is_read_in_the_order_of_its_classes_and_files(tmp_path: Path) -> None:
    for name, level in (("dog/b.png", 4), ("cat/b.png", 2), ("dog/a.png", 3), ("cat/a.png", 1), ("elk/a.png", 5)):
        save(tmp_path / name, gray(level))

    data = read_image_folder(tmp_path, Preprocessing(resize=4, height=4, width=4))

    assert data.classes == ("cat", "dog", "elk")
    assert data.labels.tolist() == [0, 0, 1, 1, 2]
    assert data.images[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]
    assert len(data) == 5


def test_an_image_of_the_right_size_is_read_to_the_last_bit(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    save(tmp_path / "cat" / "a.png", pixels)

    data = read_image_folder(tmp_path, Preprocessing(resize=6, height=6, width=6))

    assert data.images.dtype == torch.uint8
    assert torch.equal(data.images[0], torch.from_numpy(pixels).permute(2, 0, 1))


@pytest.mark.parametrize("turned", [False, True])
def test_the_center_of_a_longer_image_is_kept_at_the_scale_of_its_shorter_side(tmp_path: Path, turned: bool) -> None:
    pixels = np.concatenate([gray(10, 16, 8), gray(100, 16, 8), gray(200, 16, 8), gray(250, 16, 8)], axis=1)
    save(tmp_path / "cat" / "a.png", pixels.transpose(1, 0, 2) if turned else pixels)

    image = read_image_folder(tmp_path, Preprocessing(resize=8, height=8, width=8)).images[0]

    assert image.shape == (3, 8, 8)
    across = image[0, :, 4] if turned else image[0, 4]
    assert (int(across[1]), int(across[6])) == (100, 200)


def test_a_smaller_image_is_scaled_up(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "a.png", gray(77, 3, 5))

    data = read_image_folder(tmp_path, Preprocessing(resize=8, height=8, width=8))

    assert torch.equal(data.images, torch.full((1, 3, 8, 8), 77, dtype=torch.uint8))


def test_a_gray_image_becomes_rgb(tmp_path: Path) -> None:
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    save(tmp_path / "cat" / "a.png", pixels)

    assert torch.equal(
        read_image_folder(tmp_path, Preprocessing(resize=4, height=4, width=4)).images[0],
        torch.from_numpy(pixels).expand(3, 4, 4),
    )


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_image_folder(tmp_path / "nowhere", Preprocessing(resize=4, height=4, width=4))


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png", gray(1))

    with pytest.raises(FileNotFoundError, match="class folder"):
        read_image_folder(tmp_path, Preprocessing(resize=4, height=4, width=4))


def test_a_file_that_is_no_image_is_named(tmp_path: Path, write_tree: Callable[[Path, int, int], Path]) -> None:
    tree = write_tree(tmp_path / "tree", 2, 0)
    (tree / "red" / "broken.png").write_bytes(b"not an image")

    with pytest.raises(UnidentifiedImageError, match=r"broken\.png"):
        read_image_folder(tree, Preprocessing(resize=12, height=12, width=12))


def test_the_first_images_are_spread_over_all_classes() -> None:
    labels = torch.arange(100) // 10
    data = LabeledImages(labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2), labels, tuple("abcdefghij"))

    first = data.spread(10)

    assert first.labels.tolist() == list(range(10))
    assert torch.equal(first.images[:, 0, 0, 0].long(), first.labels)


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 1), (64, 64), (1000, 64)])
def test_there_are_never_more_first_images_than_images(two_colors: LabeledImages, count: int, expected: int) -> None:
    assert len(two_colors.spread(count)) == expected
