"""Bundles at the edges of what can be read."""

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from models.bundle import BundleError, read_bundle
from models.bundle.errors import ClassifierFailedError, WeightsCorruptError

EditManifest = Callable[[Callable[[dict[str, Any]], object]], None]
ReplaceWeights = Callable[[str, bytes], None]
Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize("dtype", ["F8_E8M0", "F4"])
def test_a_number_format_that_torch_does_not_know_is_refused(
    bundle_copy: Path, replace_weights: ReplaceWeights, dtype: str
) -> None:
    header = json.dumps({"a": {"dtype": dtype, "shape": [2], "data_offsets": [0, 1 if dtype == "F4" else 2]}}).encode()
    replace_weights("pgd-rcan", struct.pack("<Q", len(header)) + header + b"\0" * (1 if dtype == "F4" else 2))

    with pytest.raises(WeightsCorruptError):
        read_bundle(bundle_copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["pool"]["purifiers"][0]["architecture"]["encoder"].update(features=10**9),
        lambda manifest: manifest["pool"]["purifiers"][0]["architecture"]["encoder"].update(features=10**20),
        lambda manifest: manifest["classifier"]["architecture"].update(width=10**9),
    ],
    ids=["huge features", "overflowing features", "huge width"],
)
def test_a_network_that_no_machine_holds_is_a_bundle_error(
    bundle_copy: Path, edit_manifest: EditManifest, change: Change
) -> None:
    edit_manifest(change)

    with pytest.raises(BundleError):
        read_bundle(bundle_copy)


@pytest.mark.parametrize(("key", "value"), [("mean", float("nan")), ("mean", float("inf")), ("std", float("inf"))])
def test_a_normalization_that_is_no_number_is_refused(
    bundle_copy: Path, edit_manifest: EditManifest, key: str, value: float
) -> None:
    edit_manifest(lambda manifest: manifest["classifier"]["normalization"].update({key: [value] * 3}))

    with pytest.raises(BundleError):
        read_bundle(bundle_copy)


def test_a_classifier_without_finite_logits_is_refused(bundle_copy: Path, replace_weights: ReplaceWeights) -> None:
    tensors = safetensors.torch.load_file(bundle_copy / "classifier.safetensors")
    replace_weights("classifier", safetensors.torch.save({**tensors, "head.bias": torch.full((4,), float("nan"))}))

    with pytest.raises(BundleError):
        read_bundle(bundle_copy)


def test_a_manifest_without_a_format_is_refused(bundle_copy: Path, edit_manifest: EditManifest) -> None:
    edit_manifest(lambda manifest: manifest.pop("format"))

    with pytest.raises(BundleError, match="format"):
        read_bundle(bundle_copy)


def test_two_labels_of_the_same_name_are_refused(bundle_copy: Path, edit_manifest: EditManifest) -> None:
    edit_manifest(lambda manifest: manifest.update(labels=["cat", "cat", "dog", "deer"]))

    with pytest.raises(BundleError, match="labels"):
        read_bundle(bundle_copy)


def test_the_classifier_itself_is_in_evaluation_mode(bundle_folder: Path) -> None:
    assert not read_bundle(bundle_folder).classifier.training


def test_a_program_of_a_fixed_batch_is_refused(
    bundle_copy: Path, replace_weights: ReplaceWeights, edit_manifest: EditManifest
) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4)).eval()
    file = io.BytesIO()
    torch.export.save(torch.export.export(network, (torch.rand(2, 3, 32, 32),)), file)
    replace_weights("classifier", file.getvalue())
    edit_manifest(lambda manifest: manifest["classifier"].update(architecture={"kind": "exported"}))

    with pytest.raises(ClassifierFailedError):
        read_bundle(bundle_copy)
