"""Images of a folder are found by their names."""

from pathlib import Path

import pytest

from benchmarks.bodies import read_bodies


def test_suffixes_may_be_large(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.png", "c.WebP", "d.txt"):
        (tmp_path / name).write_bytes(name.encode())
    assert read_bodies(tmp_path) == [(b"a.JPG", "image/jpeg"), (b"b.png", "image/png"), (b"c.WebP", "image/webp")]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no image"):
        read_bodies(tmp_path)
