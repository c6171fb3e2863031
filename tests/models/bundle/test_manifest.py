"""A manifest is checked to the last key, and what is wrong with it is said with its file."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bundle import BundleError, read_bundle, read_manifest
from models.bundle.errors import (
    FormatTooNewError,
    ManifestInvalidError,
    ManifestMissingError,
    UnknownArchitectureError,
)
from models.bundle.manifest import Manifest

EditManifest = Callable[[Callable[[dict[str, Any]], object]], None]
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory, bundle_folder: Path) -> Path:
    """A bundle whose weights are links, and whose manifest every example writes anew."""
    folder = tmp_path_factory.mktemp("corrupted")
    for path in bundle_folder.glob("*.safetensors"):
        (folder / path.name).symlink_to(path)
    return folder


def located(folder: Path, *parts: str) -> str:
    """A pattern that finds the path of the manifest, then each part."""
    return ".*".join(map(re.escape, (str(folder / "bundle.json"), *parts)))


def outcome(folder: Path) -> str:
    """What is wrong with a bundle; any error that is no bundle error is not caught."""
    try:
        read_bundle(folder)
    except BundleError as error:
        return str(error)
    return f"{folder} is a bundle"


def test_a_folder_without_a_manifest_is_no_bundle(bundle_copy: Path) -> None:
    (bundle_copy / "bundle.json").unlink()

    with pytest.raises(ManifestMissingError, match=located(bundle_copy)):
        read_manifest(bundle_copy)


def test_a_folder_that_does_not_exist_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ManifestMissingError, match=located(tmp_path / "nowhere")):
        read_manifest(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"bundle"', b"\xff\xfe{}", b'{"name": "\xff"}', b"[" * 100_000],
    ids=["empty", "cut", "list", "null", "text", "utf-16", "not unicode", "deep"],
)
def test_a_manifest_that_is_no_json_object_is_invalid(bundle_copy: Path, content: bytes) -> None:
    (bundle_copy / "bundle.json").write_bytes(content)

    with pytest.raises(ManifestInvalidError, match=located(bundle_copy)):
        read_manifest(bundle_copy)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda manifest: manifest.update(colour="red"), "colour"),
        (lambda manifest: manifest["pool"].update(hallo=2), "pool.hallo"),
        (lambda manifest: manifest["classifier"]["architecture"].update(depth=2), "depth"),
        (lambda manifest: manifest["pool"]["purifiers"][1]["architecture"].update(scale=2), "pool.purifiers.1"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_it(
    bundle_copy: Path, edit_manifest: EditManifest, change: Change, where: str
) -> None:
    edit_manifest(change)

    with pytest.raises(ManifestInvalidError, match=located(bundle_copy, where)):
        read_manifest(bundle_copy)


@pytest.mark.parametrize("key", ["name", "version", "labels", "preprocessing", "classifier", "pool"])
def test_a_missing_key_is_an_error_that_names_it(bundle_copy: Path, edit_manifest: EditManifest, key: str) -> None:
    edit_manifest(lambda manifest: manifest.pop(key))

    with pytest.raises(ManifestInvalidError, match=located(bundle_copy, f"{key}: Field required")):
        read_manifest(bundle_copy)


def test_a_bundle_of_a_newer_format_asks_for_an_upgrade(bundle_copy: Path, edit_manifest: EditManifest) -> None:
    edit_manifest(lambda manifest: manifest.update(format=2, brand_new="feature"))

    with pytest.raises(FormatTooNewError, match=located(bundle_copy, "format 2", "upgrade")):
        read_manifest(bundle_copy)


@pytest.mark.parametrize("value", [0, -1, "2", None])
def test_a_format_that_never_was_is_invalid(bundle_copy: Path, edit_manifest: EditManifest, value: object) -> None:
    edit_manifest(lambda manifest: manifest.update(format=value))

    with pytest.raises(ManifestInvalidError, match=located(bundle_copy, "format")):
        read_manifest(bundle_copy)


def test_an_unknown_classifier_is_told_by_its_kind(bundle_copy: Path, edit_manifest: EditManifest) -> None:
    edit_manifest(lambda manifest: manifest["classifier"]["architecture"].update(kind="swin"))

    with pytest.raises(UnknownArchitectureError, match=located(bundle_copy, "classifier.architecture", "'swin'")):
        read_manifest(bundle_copy)


def test_an_unknown_encoder_is_told_by_its_kind(bundle_copy: Path, edit_manifest: EditManifest) -> None:
    edit_manifest(lambda manifest: manifest["pool"]["purifiers"][2]["architecture"]["encoder"].update(kind="swinir"))

    with pytest.raises(UnknownArchitectureError, match=located(bundle_copy, "pool.purifiers.2", "'swinir'")):
        read_manifest(bundle_copy)


@pytest.mark.parametrize(
    "name", ["../classifier.safetensors", "/etc/passwd", "a/b", "a\\b", "..", ".hidden", "", "x\n", "x\0", "x" * 101]
)
def test_a_weights_file_outside_of_the_folder_is_refused(
    bundle_copy: Path, edit_manifest: EditManifest, name: str
) -> None:
    edit_manifest(lambda manifest: manifest["classifier"]["weights"].update(file=name))

    with pytest.raises(ManifestInvalidError, match=located(bundle_copy, "classifier.weights.file")):
        read_manifest(bundle_copy)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda manifest: manifest["pool"]["purifiers"][1].update(name="fgsm-edsr"), "same name: fgsm-edsr"),
        (lambda manifest: manifest.update(labels=["cat", "dog", "ape", "dog", "cat"]), "same label: cat, dog"),
        (lambda manifest: manifest["pool"].update(purifiers=[]), "pool.purifiers"),
        (lambda manifest: manifest["preprocessing"].update(resize=31), "32x32 does not fit"),
        (lambda manifest: manifest["pool"].update(grid=33), "33x33 grid"),
        (lambda manifest: manifest["pool"].update(grid=0), "pool.grid"),
        (lambda manifest: manifest["pool"].update(halo=-1), "pool.halo"),
        (lambda manifest: manifest.update(labels=[]), "labels"),
        (lambda manifest: manifest["classifier"].update(classes=0), "classifier.classes"),
        (lambda manifest: manifest["classifier"]["normalization"].update(std=[1, 0, 1]), "normalization.std.1"),
        (lambda manifest: manifest["classifier"]["weights"].update(sha256="A" * 64), "classifier.weights.sha256"),
        (lambda manifest: manifest["preprocessing"].update(interpolation="nearest"), "preprocessing.interpolation"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_invalid(
    bundle_copy: Path, edit_manifest: EditManifest, change: Change, where: str
) -> None:
    edit_manifest(change)

    with pytest.raises(ManifestInvalidError, match=located(bundle_copy, where)):
        read_manifest(bundle_copy)


def test_a_hundred_thousand_labels_are_read_and_those_that_are_there_twice_are_named(
    bundle_copy: Path, edit_manifest: EditManifest
) -> None:
    labels = [f"class-{index}" for index in range(100_000)]
    edit_manifest(lambda manifest: manifest.update(labels=labels))
    assert read_manifest(bundle_copy).labels == tuple(labels)

    edit_manifest(lambda manifest: manifest.update(labels=[*labels, "class-7"]))
    with pytest.raises(ManifestInvalidError, match=located(bundle_copy, "same label: class-7")):
        read_manifest(bundle_copy)


def test_every_problem_of_a_manifest_is_told_at_once(bundle_copy: Path, edit_manifest: EditManifest) -> None:
    edit_manifest(lambda manifest: (manifest.pop("name"), manifest["pool"].update(grid="two")))

    with pytest.raises(ManifestInvalidError, match=located(bundle_copy, "name", "pool.grid")):
        read_manifest(bundle_copy)


def test_a_manifest_cannot_be_changed_once_read(bundle_folder: Path) -> None:
    manifest = read_manifest(bundle_folder)

    with pytest.raises(ValueError, match="frozen"):
        setattr(manifest.pool, "grid", 3)  # noqa: B010


def test_a_manifest_survives_being_stored(bundle_folder: Path) -> None:
    manifest = read_manifest(bundle_folder)

    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert json.loads((bundle_folder / "bundle.json").read_bytes())["pool"]["grid"] == manifest.pool.grid


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_damaged_byte_of_the_manifest_is_a_bundle_error_or_harmless(
    scratch: Path, bundle_folder: Path, data: st.DataObject
) -> None:
    content = bytearray((bundle_folder / "bundle.json").read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (scratch / "bundle.json").write_bytes(content)

    assert str(scratch) in outcome(scratch)
