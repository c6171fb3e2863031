"""Both sides of the comparison are about the same images, by the labels of the bundle."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer
from PIL import Image

from benchmarks.accuracy import ask_all, choose_images, main

if TYPE_CHECKING:
    from tests.benchmarks.conftest import TinyServer

    Start = Callable[[Callable[[int], int]], TinyServer]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("bird/1.png", "bird/deeper/2.PNG", "bird/.hidden.png", "bird/notes.txt", "cat/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith("txt"):
            Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


def test_images_have_the_indices_of_the_labels_whatever_the_order_of_the_folders(tree: Path) -> None:
    chosen = choose_images(tree, ("dog", "cat", "bird"), 10)
    found = [(str(path.relative_to(tree)), chosen.classes[index]) for path, index in chosen.files]
    assert found == [("bird/1.png", "bird"), ("bird/deeper/2.PNG", "bird"), ("cat/3.jpg", "cat")]
    assert [index for _, index in chosen.files] == [2, 2, 1]


def test_fewer_images_are_spread_over_the_tree(tree: Path) -> None:
    chosen = choose_images(tree, ("bird", "cat"), 2)
    assert [path.name for path, _ in chosen.files] == ["1.png", "3.jpg"]


def test_a_folder_that_is_no_label_is_refused_before_a_server_starts(tree: Path, bundle_folder: Path) -> None:
    (tree / "cat").rename(tree / "zebra")
    with pytest.raises(typer.BadParameter, match="zebra"):
        main(tree, bundle=bundle_folder)


async def test_files_are_sent_with_their_media_type(tree: Path, tiny: "Start") -> None:
    server = tiny(lambda _number: 415)
    outcomes = await ask_all(server.url, [(tree / "bird/deeper/2.PNG", "bird"), (tree / "cat/3.jpg", "cat")])
    assert outcomes == {"415": 2}
    assert {media_type for media_type, _ in server.asked} == {"image/png", "image/jpeg"}
