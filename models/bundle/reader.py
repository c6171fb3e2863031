"""Reads a bundle: checks every file against the manifest before any of it is used."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from models.bundle.errors import (
    ClassifierFailedError,
    LabelsMismatchError,
    WeightsCorruptError,
    WeightsMismatchError,
    WeightsMissingError,
)
from models.bundle.manifest import Classifier, Manifest, WeightsFile, read_manifest
from models.classifiers import ExportedConfig
from models.classifiers.exported import read_program
from models.classifiers.normalization import Normalized
from models.purifier import Purifier


@dataclass(frozen=True)
class Bundle:
    """What one deployment serves, in memory and in evaluation mode.

    Attributes:
        manifest: what the bundle says of itself.
        classifier: takes `(N, 3, height, width)` float32 in [0, 1]; gives `(N, classes)` logits.
        purifiers: by name, in the order of the manifest.
    """

    manifest: Manifest
    classifier: nn.Module
    purifiers: dict[str, Purifier]


def read_bundle(folder: Path) -> Bundle:
    """Reads the bundle in `folder` onto the CPU, as float32, and lets its classifier see one image.

    Raises:
        BundleError: the subclass says what is wrong, the message where.
    """
    manifest = read_manifest(folder)
    if len(manifest.labels) != manifest.classifier.classes:
        raise LabelsMismatchError(
            f"{folder}: {len(manifest.labels)} labels for a classifier of {manifest.classifier.classes} classes"
        )
    classifier = _read_classifier(folder, manifest.classifier)
    purifiers = {}
    for entry in manifest.pool.purifiers:
        purifier = Purifier(entry.architecture)
        _assign(purifier, _read_tensors(folder, entry.weights), folder / entry.weights.file)
        purifiers[entry.name] = purifier.eval().requires_grad_(False)
    _check_classifier(folder, manifest, classifier)
    return Bundle(manifest, classifier, purifiers)


def _read_classifier(folder: Path, section: Classifier) -> nn.Module:
    path = folder / section.weights.file
    if isinstance(section.architecture, ExportedConfig):
        content = _read_file(folder, section.weights)
        try:
            network = read_program(content)
        except Exception as error:  # PyTorch's loader has no error type of its own
            raise WeightsCorruptError(f"{path}: not a program that can be served: {error}") from error
    else:
        network = section.architecture.build(section.classes)
        _assign(network, _read_tensors(folder, section.weights), path)
        network.eval().requires_grad_(False)
    if section.normalization is None:
        return network
    return Normalized(network, section.normalization.mean, section.normalization.std)


def _read_file(folder: Path, weights: WeightsFile) -> bytes:
    path = folder / weights.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsMissingError(f"{path}: {error.strerror}") from error
    if len(content) != weights.size:
        raise WeightsCorruptError(f"{path}: {len(content)} bytes, the manifest says {weights.size}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != weights.sha256:
        raise WeightsCorruptError(f"{path}: SHA-256 is {digest}, the manifest says {weights.sha256}")
    return content


def _read_tensors(folder: Path, weights: WeightsFile) -> dict[str, Tensor]:
    content = _read_file(folder, weights)
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise WeightsCorruptError(f"{folder / weights.file}: not a safetensors file: {error}") from error


def _assign(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsMismatchError(f"{path}: the weights do not fit the architecture: {error}") from error


@torch.inference_mode()
def _check_classifier(folder: Path, manifest: Manifest, classifier: nn.Module) -> None:
    size = manifest.preprocessing
    try:
        logits = classifier(torch.full((2, 3, size.height, size.width), 0.5))
    except Exception as error:  # a user's network may raise anything
        raise ClassifierFailedError(f"{folder}: the classifier fails on {size.width}x{size.height}: {error}") from error
    expected = (2, manifest.classifier.classes)
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != expected:
        raise LabelsMismatchError(f"{folder}: the classifier gives {shape} for two images, not {expected} logits")
