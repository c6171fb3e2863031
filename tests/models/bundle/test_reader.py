"""A bundle is read only when every file of it is what the manifest says."""

import io
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from models.bundle import Bundle, read_bundle
from models.bundle.errors import (
    BundleError,
    ClassifierFailedError,
    LabelsMismatchError,
    ManifestMissingError,
    WeightsCorruptError,
    WeightsMismatchError,
    WeightsMissingError,
)
from models.classifiers.normalization import Normalized

EditManifest = Callable[[Callable[[dict[str, Any]], object]], None]
ReplaceWeights = Callable[[str, bytes], None]
OWNERS = ["classifier", "pgd-rcan"]
each_owner = pytest.mark.parametrize("owner", OWNERS)


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path) -> Bundle:
    return read_bundle(bundle_folder)


@pytest.fixture
def use_program(replace_weights: ReplaceWeights, edit_manifest: EditManifest) -> Callable[[nn.Module, int], None]:
    """Makes an exported network of images of some size the classifier of `bundle_copy`."""

    def use(network: nn.Module, size: int) -> None:
        program = torch.export.export(
            network, (torch.rand(2, 3, size, size),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        file = io.BytesIO()
        torch.export.save(program, file)
        replace_weights("classifier", file.getvalue())
        edit_manifest(lambda manifest: manifest["classifier"].update(architecture={"kind": "exported"}))

    return use


def linear(size: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, classes)).eval()


class Rowwise(nn.Module):
    """Reads the pixels of a row two by two, as complex numbers: that takes rows that lie in memory pixel by pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        pairs = torch.view_as_complex(torch.unflatten(images, 3, (-1, 2)))
        logits: Tensor = self.head(pairs.abs().mean(dim=(2, 3)))
        return logits


def at(folder: Path, file: str, *parts: str) -> str:
    """A pattern that finds the path of a file, then each part."""
    return ".*".join(map(re.escape, (str(folder / file), *parts)))


def test_a_bundle_holds_all_purifiers_in_the_order_of_the_manifest(bundle: Bundle) -> None:
    assert list(bundle.purifiers) == ["fgsm-edsr", "fgsm-rcan", "pgd-edsr", "pgd-rcan"]
    assert [purifier.name for purifier in bundle.manifest.pool.purifiers] == list(bundle.purifiers)


def test_every_network_is_in_evaluation_mode_and_takes_no_gradients(bundle: Bundle) -> None:
    assert isinstance(bundle.classifier, Normalized)
    for network in (bundle.classifier.network, *bundle.purifiers.values()):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_every_weight_is_read_as_float32(bundle: Bundle) -> None:
    for network in (bundle.classifier, *bundle.purifiers.values()):
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_purifiers_have_the_weights_of_their_own_files(bundle: Bundle, bundle_folder: Path) -> None:
    for name, purifier in bundle.purifiers.items():
        stored = safetensors.torch.load_file(bundle_folder / f"{name}.safetensors")
        assert {key: tensor.tolist() for key, tensor in purifier.state_dict().items()} == {
            key: tensor.float().tolist() for key, tensor in stored.items()
        }


def test_the_classifier_takes_plain_pixels_and_normalizes_them(bundle: Bundle) -> None:
    assert isinstance(bundle.classifier, Normalized)
    images = torch.rand(3, 3, 32, 32)

    with torch.inference_mode():
        torch.testing.assert_close(bundle.classifier(images), bundle.classifier.network((images - 0.5) / 0.25))


def test_a_classifier_without_normalization_takes_pixels_as_they_are(
    bundle: Bundle, bundle_copy: Path, edit_manifest: EditManifest
) -> None:
    assert isinstance(bundle.classifier, Normalized)
    edit_manifest(lambda manifest: manifest["classifier"].update(normalization=None))
    images = torch.rand(3, 3, 32, 32)

    with torch.inference_mode():
        assert torch.equal(read_bundle(bundle_copy).classifier(images), bundle.classifier.network(images))


def test_weights_without_a_manifest_are_no_bundle(bundle_copy: Path) -> None:
    (bundle_copy / "bundle.json").unlink()

    with pytest.raises(ManifestMissingError, match=at(bundle_copy, "bundle.json")):
        read_bundle(bundle_copy)


@each_owner
def test_a_missing_weights_file_is_named(bundle_copy: Path, owner: str) -> None:
    (bundle_copy / f"{owner}.safetensors").unlink()

    with pytest.raises(WeightsMissingError, match=at(bundle_copy, f"{owner}.safetensors")):
        read_bundle(bundle_copy)


@each_owner
@pytest.mark.parametrize("position", [0, 40, -1])
def test_a_flipped_bit_is_found(bundle_copy: Path, owner: str, position: int) -> None:
    path = bundle_copy / f"{owner}.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)

    with pytest.raises(WeightsCorruptError, match=at(bundle_copy, path.name, "SHA-256")):
        read_bundle(bundle_copy)


@each_owner
@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_length_is_found(bundle_copy: Path, owner: str, change: int) -> None:
    path = bundle_copy / f"{owner}.safetensors"
    content = path.read_bytes()
    path.write_bytes((content + b"\0")[: len(content) + change])

    with pytest.raises(
        WeightsCorruptError,
        match=at(bundle_copy, path.name, f"{len(content) + change} bytes, the manifest says {len(content)}"),
    ):
        read_bundle(bundle_copy)


@each_owner
@pytest.mark.parametrize(
    "content",
    [b"", b"not weights", struct.pack("<Q", 2**40) + b"{}", struct.pack("<Q", 2) + b"[]"],
    ids=["empty", "text", "huge header", "no header"],
)
def test_a_file_that_is_no_safetensors_is_refused_though_its_hash_fits(
    bundle_copy: Path, replace_weights: ReplaceWeights, owner: str, content: bytes
) -> None:
    replace_weights(owner, content)

    with pytest.raises(WeightsCorruptError, match=at(bundle_copy, f"{owner}.safetensors", "not a safetensors file")):
        read_bundle(bundle_copy)


@each_owner
def test_weights_of_other_shapes_do_not_fit(bundle_copy: Path, replace_weights: ReplaceWeights, owner: str) -> None:
    tensors = safetensors.torch.load_file(bundle_copy / f"{owner}.safetensors")
    name, tensor = next((name, tensor) for name, tensor in tensors.items() if tensor.ndim == 4)
    replace_weights(owner, safetensors.torch.save({**tensors, name: tensor[:-1].contiguous()}))

    with pytest.raises(WeightsMismatchError, match="(?s)" + at(bundle_copy, f"{owner}.safetensors", name)):
        read_bundle(bundle_copy)


@each_owner
def test_weights_of_other_names_do_not_fit(bundle_copy: Path, replace_weights: ReplaceWeights, owner: str) -> None:
    tensors = safetensors.torch.load_file(bundle_copy / f"{owner}.safetensors")
    name = min(tensors)
    tensors["other"] = tensors.pop(name)
    replace_weights(owner, safetensors.torch.save(tensors))

    with pytest.raises(WeightsMismatchError, match="(?s)" + at(bundle_copy, f"{owner}.safetensors", name)):
        read_bundle(bundle_copy)


def test_weights_of_another_architecture_do_not_fit(bundle_copy: Path, edit_manifest: EditManifest) -> None:
    edit_manifest(lambda manifest: manifest["pool"]["purifiers"][0]["architecture"]["encoder"].update(blocks=2))

    with pytest.raises(WeightsMismatchError, match=at(bundle_copy, "fgsm-edsr.safetensors")):
        read_bundle(bundle_copy)


@pytest.mark.parametrize("labels", [["cat"], ["airplane", "bird", "cat", "deer", "dog"]])
def test_as_many_labels_as_classes_are_needed(
    bundle_copy: Path, edit_manifest: EditManifest, labels: list[str]
) -> None:
    edit_manifest(lambda manifest: manifest.update(labels=labels))

    with pytest.raises(LabelsMismatchError, match=at(bundle_copy, "", f"{len(labels)} labels", "4 classes")):
        read_bundle(bundle_copy)


def test_an_exported_program_is_read_and_normalized(
    bundle_copy: Path, use_program: Callable[[nn.Module, int], None]
) -> None:
    network = linear(32, 4)
    use_program(network, 32)
    images = torch.rand(3, 3, 32, 32)

    classifier = read_bundle(bundle_copy).classifier

    torch.testing.assert_close(classifier(images), network((images - 0.5) / 0.25))


def test_a_program_that_gives_other_logits_than_labels_is_refused(
    bundle_copy: Path, use_program: Callable[[nn.Module, int], None]
) -> None:
    use_program(linear(32, 5), 32)

    with pytest.raises(LabelsMismatchError, match=at(bundle_copy, "", "(1, 5)", "(1, 4)")):
        read_bundle(bundle_copy)


def test_a_program_that_fails_on_images_of_the_declared_size_is_refused(
    bundle_copy: Path, use_program: Callable[[nn.Module, int], None]
) -> None:
    use_program(linear(16, 4), 16)

    with pytest.raises(ClassifierFailedError, match=at(bundle_copy, "", "32x32")):
        read_bundle(bundle_copy)


def test_a_program_that_fails_on_images_as_they_are_served_is_refused(
    bundle_copy: Path, edit_manifest: EditManifest, use_program: Callable[[nn.Module, int], None]
) -> None:
    use_program(Rowwise().eval(), 32)
    edit_manifest(lambda manifest: manifest["classifier"].update(normalization=None))

    with pytest.raises(ClassifierFailedError, match=at(bundle_copy, "", "fails on 1 images", "stride 1")):
        read_bundle(bundle_copy)


def test_a_file_that_is_no_program_is_refused_though_its_hash_fits(
    bundle_copy: Path, replace_weights: ReplaceWeights, edit_manifest: EditManifest
) -> None:
    replace_weights("classifier", b"not a program")
    edit_manifest(lambda manifest: manifest["classifier"].update(architecture={"kind": "exported"}))

    with pytest.raises(WeightsCorruptError, match=at(bundle_copy, "classifier.safetensors", "not a program")):
        read_bundle(bundle_copy)


def test_safetensors_are_checked_before_they_are_used(bundle_copy: Path, replace_weights: ReplaceWeights) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}).encode()
    replace_weights("classifier", struct.pack("<Q", len(header)) + header + b"\0" * 4)

    with pytest.raises(WeightsCorruptError, match=at(bundle_copy, "classifier.safetensors")):
        read_bundle(bundle_copy)


@pytest.mark.parametrize(
    "error",
    [ManifestMissingError, WeightsMissingError, WeightsCorruptError, WeightsMismatchError, LabelsMismatchError],
)
def test_every_error_is_caught_as_a_bundle_error(error: type[Exception]) -> None:
    assert issubclass(error, BundleError)
