"""What is written is what is read, and a folder is a bundle only once its manifest is there."""

import errno
import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import torch

from models.bundle import BundleError, read_bundle, read_manifest
from models.bundle.manifest import Manifest
from models.bundle.writer import staged, write_file, write_manifest, write_weights
from models.classifiers import ResNetConfig

CLASSIFIER = ResNetConfig(width=4, blocks=(1, 1, 1, 1))


@pytest.fixture
def manifest(bundle_folder: Path) -> Manifest:
    """A manifest of the toy bundle with something that the toy lacks."""
    provenance = {"recipe": {"seeds": [1, 2]}, "accuracy": 0.93, "commit": None}
    return read_manifest(bundle_folder).model_copy(update={"provenance": provenance})


def test_a_written_manifest_is_read_back_the_same(manifest: Manifest, tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest)

    assert read_manifest(tmp_path) == manifest


def test_written_networks_answer_the_same_when_read(manifest: Manifest, bundle_copy: Path) -> None:
    network = CLASSIFIER.build(4).eval()
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float()
    weights = write_weights(bundle_copy, "classifier", network)
    classifier = manifest.classifier.model_copy(update={"weights": weights, "normalization": None})
    write_manifest(bundle_copy, manifest.model_copy(update={"classifier": classifier}))
    images = torch.rand(2, 3, 32, 32)

    with torch.inference_mode():
        assert torch.equal(read_bundle(bundle_copy).classifier(images), network(images))


def test_a_weights_file_is_described_by_its_size_and_hash(tmp_path: Path) -> None:
    described = write_weights(tmp_path, "classifier", CLASSIFIER.build(4))

    content = (tmp_path / described.file).read_bytes()
    assert described.file == "classifier.safetensors"
    assert described.size == len(content)
    assert described.sha256 == hashlib.sha256(content).hexdigest()


def test_kernels_are_stored_in_half_precision_and_all_else_as_it_is(tmp_path: Path) -> None:
    network = CLASSIFIER.build(4)
    stored = safetensors.torch.load_file(tmp_path / write_weights(tmp_path, "classifier", network).file)

    for name, tensor in network.state_dict().items():
        assert stored[name].dtype == (torch.float16 if tensor.ndim > 1 else tensor.dtype)
        torch.testing.assert_close(stored[name].to(tensor.dtype), tensor, rtol=1e-3, atol=1e-7)


def test_weights_alone_make_no_bundle(tmp_path: Path) -> None:
    write_weights(tmp_path, "classifier", CLASSIFIER.build(4))

    with pytest.raises(BundleError):
        read_manifest(tmp_path)


def test_a_written_folder_holds_nothing_but_the_bundle(manifest: Manifest, tmp_path: Path) -> None:
    write_file(tmp_path / "new" / "bundle", "classifier.pt2", b"program")
    write_manifest(tmp_path / "new" / "bundle", manifest)

    assert sorted(path.name for path in (tmp_path / "new" / "bundle").iterdir()) == ["bundle.json", "classifier.pt2"]


def test_writing_again_replaces_a_file(tmp_path: Path) -> None:
    write_file(tmp_path, "weights", b"a longer content")
    write_file(tmp_path, "weights", b"short")

    assert (tmp_path / "weights").read_bytes() == b"short"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_staged_folder_takes_its_place_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    with staged(tmp_path / "new" / "bundle") as folder:
        write_file(folder, "weights", b"new")
        assert not (tmp_path / "new" / "bundle").exists()

    assert contents(tmp_path / "new" / "bundle") == {"weights": b"new"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["bundle"]


def test_a_staged_folder_leaves_nothing_of_what_was_there(tmp_path: Path) -> None:
    write_file(tmp_path / "bundle", "weights", b"old")
    write_file(tmp_path / "bundle", "orphan", b"old")
    write_file(tmp_path / ".bundle.partial", "half-written", b"by a run that was killed")
    write_file(tmp_path / ".bundle.old", "weights", b"of a run that was killed")

    with staged(tmp_path / "bundle") as folder:
        write_file(folder, "weights", b"new")

    assert contents(tmp_path / "bundle") == {"weights": b"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_staged_folder_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write_file(tmp_path / "bundle", "weights", b"old")

    def fill_the_disk() -> None:
        with staged(tmp_path / "bundle") as folder:
            write_file(folder, "weights", b"half of the new")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fill_the_disk()

    assert contents(tmp_path / "bundle") == {"weights": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_what_was_there_comes_back_if_the_new_folder_cannot_be_moved_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "bundle", "weights", b"old")
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == ".bundle.partial":
            raise PermissionError(errno.EACCES, "Permission denied")
        return rename(path, target)

    def write() -> None:
        with staged(tmp_path / "bundle") as folder:
            write_file(folder, "weights", b"new")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        write()

    assert contents(tmp_path / "bundle") == {"weights": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_of_a_link_the_folder_that_it_names_is_replaced(tmp_path: Path) -> None:
    write_file(tmp_path / "first", "weights", b"old")
    (tmp_path / "current").symlink_to(tmp_path / "first")

    with staged(tmp_path / "current") as folder:
        write_file(folder, "weights", b"new")

    assert (tmp_path / "current").is_symlink()
    assert contents(tmp_path / "first") == {"weights": b"new"}
