"""The sample: spread over the classes, and the same for any two runs."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from evaluation.errors import EvaluationError
from evaluation.images import read_sample
from models.preprocessing import Preprocessing

LABELS = ("airplane", "bird", "cat", "deer")
SIZE = Preprocessing(resize=32, height=32, width=32)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for label, red in (("cat", 200), ("bird", 100)):
        (tmp_path / label).mkdir()
        for index in range(4):
            Image.new("RGB", (32, 32), (red + index, 0, 51)).save(tmp_path / label / f"{index}.png")
    return tmp_path


def test_images_come_by_turns_from_each_class_with_the_labels_of_the_bundle(tree: Path) -> None:
    sample = read_sample(tree, LABELS, SIZE, 3)

    assert sample.labels.tolist() == [1, 2, 1]
    assert (sample.images[:, 0, 0, 0] * 255).round().tolist() == [100, 200, 101]
    assert float(sample.images[0, 2, 0, 0]) == pytest.approx(0.2)
    assert sample.images.dtype == torch.float32


def test_a_smaller_sample_is_the_beginning_of_a_larger_one(tree: Path) -> None:
    small, large = (read_sample(tree, LABELS, SIZE, count) for count in (3, 6))

    assert torch.equal(small.images, large.images[:3])
    assert small.indices == large.indices[:3]


def test_a_sample_tells_its_tree_whatever_part_of_it_is_read(tree: Path) -> None:
    small, large = (read_sample(tree, LABELS, SIZE, count) for count in (3, 6))

    assert small.tree_sha256
    assert small.tree_sha256 == large.tree_sha256 == large.part(2, 4).tree_sha256


@pytest.mark.parametrize("content", [(32, 32), (64, 64)])
def test_another_file_or_another_content_is_another_tree(tree: Path, content: tuple[int, int]) -> None:
    before = read_sample(tree, LABELS, SIZE, 3).tree_sha256
    Image.new("RGB", content, (1, 2, 3)).save(tree / "cat" / ("new.png" if content == (32, 32) else "3.png"))

    assert read_sample(tree, LABELS, SIZE, 3).tree_sha256 != before


def test_a_tree_that_was_moved_is_the_same(tree: Path) -> None:
    before = read_sample(tree, LABELS, SIZE, 3).tree_sha256
    (tree / "moved").mkdir()
    for label in ("cat", "bird"):
        (tree / label).rename(tree / "moved" / label)

    assert read_sample(tree / "moved", LABELS, SIZE, 3).tree_sha256 == before


def test_all_images_are_taken_where_there_are_fewer(tree: Path) -> None:
    assert len(read_sample(tree, LABELS, SIZE, 100)) == 8


def test_a_file_that_is_no_image_is_told(tree: Path) -> None:
    (tree / "cat" / "0.png").write_text("no image")

    with pytest.raises(EvaluationError, match=r"0\.png"):
        read_sample(tree, LABELS, SIZE, 8)
