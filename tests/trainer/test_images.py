"""An ImageFolder tree becomes one tensor, in order, at one size; damaged files are left out by name, or stop all."""

import tracemalloc
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.preprocessing import Preprocessing
from trainer.errors import DataError
from trainer.images import LabeledImages, read_image_folder, spread_indices

SMALL = Preprocessing(resize=4, height=4, width=4)
Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def save(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def gray(level: int, height: int = 4, width: int = 4) -> Pixels:
    return np.full((height, width, 3), level, np.uint8)


def test_a_tree_is_read_in_the_order_of_its_classes_and_files(tmp_path: Path) -> None:
    for name, level in (("dog/b.png", 4), ("cat/b.png", 2), ("dog/a.png", 3), ("cat/a.png", 1), ("elk/a.png", 5)):
        save(tmp_path / name, gray(level))

    data = read_image_folder(tmp_path, SMALL)

    assert data.classes == ("cat", "dog", "elk")
    assert data.labels.tolist() == [0, 0, 1, 1, 2]
    assert data.images[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]
    assert len(data) == 5
    assert data.skipped == ()


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


def test_a_crop_smaller_than_the_scaled_image_is_its_center(tmp_path: Path) -> None:
    pixels = gray(10, 8, 8)
    pixels[2:6, 2:6] = 200
    save(tmp_path / "cat" / "a.png", pixels)

    data = read_image_folder(tmp_path, Preprocessing(resize=8, height=4, width=4))

    assert torch.equal(data.images, torch.full((1, 3, 4, 4), 200, dtype=torch.uint8))


def test_a_smaller_image_is_scaled_up(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "a.png", gray(77, 3, 5))

    data = read_image_folder(tmp_path, Preprocessing(resize=8, height=8, width=8))

    assert torch.equal(data.images, torch.full((1, 3, 8, 8), 77, dtype=torch.uint8))


def test_a_gray_image_becomes_rgb(tmp_path: Path) -> None:
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    save(tmp_path / "cat" / "a.png", pixels)

    assert torch.equal(read_image_folder(tmp_path, SMALL).images[0], torch.from_numpy(pixels).expand(3, 4, 4))


def test_images_in_folders_below_a_class_belong_to_it_and_other_files_are_left_alone(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "siam" / "a.PNG", gray(1))
    save(tmp_path / "cat" / "b.jpeg", gray(2))
    save(tmp_path / ".cache" / "a.png", gray(3))
    (tmp_path / "cat" / "notes.txt").write_text("not an image, and not said to be one")
    (tmp_path / "cat" / "notes.pdf").write_text("Pillow saves such files and opens none")

    data = read_image_folder(tmp_path, SMALL)

    assert (data.classes, len(data), data.skipped) == (("cat",), 2, ())


def test_hidden_files_and_folders_below_a_class_are_no_images_of_it(tmp_path: Path) -> None:
    tree = tmp_path / ".cache" / "tree"
    save(tree / "cat" / "a.png", gray(1))
    for name in ("._a.png", ".ipynb_checkpoints/a-checkpoint.png", "siam/.thumbnails/deep/a.png"):
        save(tree / "cat" / name, gray(9))

    data = read_image_folder(tree, SMALL)

    assert data.images[:, 0, 0, 0].tolist() == [1]


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: No such file or directory"):
        read_image_folder(tmp_path / "nowhere", SMALL)


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png", gray(1))

    with pytest.raises(DataError, match="no class folders here"):
        read_image_folder(tmp_path, SMALL)


def test_a_class_folder_without_images_is_named(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "a.png", gray(1))
    (tmp_path / "dog").mkdir()

    with pytest.raises(DataError, match="dog: no images here"):
        read_image_folder(tmp_path, SMALL)


def test_the_classes_that_are_named_are_in_that_order_even_without_images(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "a.png", gray(1))
    save(tmp_path / "dog" / "a.png", gray(2))

    data = read_image_folder(tmp_path, SMALL, classes=("elk", "dog", "cat"))

    assert data.classes == ("elk", "dog", "cat")
    assert dict(zip(data.images[:, 0, 0, 0].tolist(), data.labels.tolist(), strict=True)) == {1: 2, 2: 1}


def test_a_folder_that_is_none_of_the_named_classes_is_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "a.png", gray(1))
    save(tmp_path / "wolf" / "a.png", gray(2))

    with pytest.raises(DataError, match=r"none of the classes: wolf$"):
        read_image_folder(tmp_path, SMALL, classes=("cat", "dog"))


def test_so_many_of_each_class_are_spread_over_its_files(tmp_path: Path) -> None:
    for index in range(9):
        save(tmp_path / "cat" / f"{index}.png", gray(index))
    save(tmp_path / "dog" / "0.png", gray(100))

    data = read_image_folder(tmp_path, SMALL, per_class=3)

    assert data.images[:, 0, 0, 0].tolist() == [0, 4, 8, 100]


def _whole_jpeg(tmp_path: Path) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    save(tmp_path / "whole.jpg", noise)
    return (tmp_path / "whole.jpg").read_bytes()


def _damaged_avif(tmp_path: Path) -> bytes:
    """One whose picture begins with zeros."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    save(tmp_path / "whole.avif", noise)
    content = (tmp_path / "whole.avif").read_bytes()
    begin = content.index(b"mdat") + 4
    return content[:begin] + bytes(20) + content[begin + 20 :]


def _damages(tmp_path: Path) -> dict[str, bytes]:
    jpeg = _whole_jpeg(tmp_path)
    save(tmp_path / "whole.png", gray(1, 32, 32))
    png = (tmp_path / "whole.png").read_bytes()
    return {
        "cut short.jpg": jpeg[: len(jpeg) // 2],
        "empty.png": b"",
        "text.png": b"<html>404 Not Found</html>",
        "head alone.png": png[:20],
        "damaged chunk.png": png[:40] + bytes(20) + png[60:],
        "zeros.webp": bytes(1000),
        "zeros.avif": _damaged_avif(tmp_path),
    }


@pytest.fixture
def sparsely_damaged(tmp_path: Path) -> Callable[[Sequence[str]], Path]:
    """Writes a tree of 200 images of one level each, some of which are damaged in the ways that are named."""

    def write(ways: Sequence[str]) -> Path:
        damages = _damages(tmp_path)
        tree = tmp_path / "tree"
        for index in range(200 - len(ways)):
            save(tree / f"class{index % 2}" / f"{index:03}.png", gray(index))
        for way in ways:
            (tree / "class1" / way).write_bytes(damages[way])
        return tree

    return write


@pytest.mark.parametrize(
    "way",
    ["cut short.jpg", "empty.png", "text.png", "head alone.png", "damaged chunk.png", "zeros.webp", "zeros.avif"],
)
def test_a_damaged_file_in_two_hundred_is_left_out_and_named(
    sparsely_damaged: Callable[[Sequence[str]], Path], way: str
) -> None:
    data = read_image_folder(sparsely_damaged([way]), SMALL)

    assert data.skipped == (str(Path("class1", way)),)
    assert len(data) == len(data.images) == 199
    assert torch.equal(data.labels, data.images[:, 0, 0, 0].long() % 2)
    assert data.images[:, 0, 0, 0].tolist() == [*range(0, 199, 2), *range(1, 199, 2)]


def test_pillow_tells_of_a_damaged_avif_file_by_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Failed to decode"), Image.open(BytesIO(_damaged_avif(tmp_path))) as file:
        file.load()


def test_images_are_held_in_memory_once(sparsely_damaged: Callable[[Sequence[str]], Path]) -> None:
    tree, size = sparsely_damaged(["empty.png"]), Preprocessing(resize=128, height=128, width=128)
    tracemalloc.start()

    data = read_image_folder(tree, size)

    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data.images.is_contiguous()
    assert most < 1.5 * data.images.nbytes


def test_exactly_one_percent_of_damaged_files_is_let_through(
    sparsely_damaged: Callable[[Sequence[str]], Path],
) -> None:
    data = read_image_folder(sparsely_damaged(["empty.png", "text.png"]), SMALL)

    assert len(data.skipped) == 2


def test_more_than_one_percent_of_damaged_files_is_refused_with_their_names(
    sparsely_damaged: Callable[[Sequence[str]], Path],
) -> None:
    tree = sparsely_damaged(["empty.png", "text.png", "cut short.jpg"])

    with pytest.raises(DataError, match=r"3 of 200 files are damaged, over 1 %: .*cut short\.jpg.*empty.*text"):
        read_image_folder(tree, SMALL)


def test_of_many_damaged_files_the_first_ten_are_named(tmp_path: Path) -> None:
    for index in range(13):
        path = tmp_path / "cat" / f"{index:02}.png"
        path.parent.mkdir(exist_ok=True)
        path.touch()

    with pytest.raises(DataError, match=r"09\.png and 3 more$"):
        read_image_folder(tmp_path, SMALL)


def test_images_that_do_not_fit_in_memory_are_refused_before_any_is_read(tmp_path: Path) -> None:
    for index in range(2):
        save(tmp_path / "cat" / f"{index}.png", gray(1))
    huge = 2**22

    with pytest.raises(
        DataError, match=r"2 images of 4194304x4194304 need 98304\.0 GiB .*take fewer images .*data\.per_class"
    ):
        read_image_folder(tmp_path, Preprocessing(resize=huge, height=huge, width=huge))


def test_the_first_images_are_spread_over_all_classes() -> None:
    labels = torch.arange(100) // 10
    data = LabeledImages(labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2), labels, tuple("abcdefghij"))

    first = data.spread(10)

    assert first.labels.tolist() == list(range(10))
    assert torch.equal(first.images[:, 0, 0, 0].long(), first.labels)


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 1), (64, 64), (1000, 64)])
def test_there_are_never_more_first_images_than_images(two_colors: LabeledImages, count: int, expected: int) -> None:
    assert len(two_colors.spread(count)) == expected


def test_spread_indices_are_distinct_and_reach_both_ends() -> None:
    for total in range(2, 30):
        for count in range(2, total + 1):
            indices = spread_indices(total, count).tolist()
            assert len(set(indices)) == count
            assert (indices[0], indices[-1]) == (0, total - 1)


def test_equal_data_have_one_fingerprint(two_colors: LabeledImages) -> None:
    copy = LabeledImages(two_colors.images.clone(), two_colors.labels.clone(), two_colors.classes)

    assert copy.fingerprint == two_colors.fingerprint


def test_the_layout_in_memory_does_not_change_the_fingerprint(two_colors: LabeledImages) -> None:
    laid_out = two_colors.images.to(memory_format=torch.channels_last)

    assert LabeledImages(laid_out, two_colors.labels, two_colors.classes).fingerprint == two_colors.fingerprint


@pytest.mark.parametrize("change", ["pixel", "label", "order", "classes"])
def test_any_change_of_the_data_changes_their_fingerprint(two_colors: LabeledImages, change: str) -> None:
    images, labels, classes = two_colors.images.clone(), two_colors.labels.clone(), two_colors.classes
    if change == "pixel":
        images[5, 2, 7, 0] ^= 1
    elif change == "label":
        labels[9] = 1 - labels[9]
    elif change == "order":
        images = images.roll(2, 0)
    else:
        classes = ("red", "green")

    assert LabeledImages(images, labels, classes).fingerprint != two_colors.fingerprint
