"""Reads a bundle: checks every file against the manifest before any of it is used."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

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
from models.preprocessing import Preprocessing
from models.purifier import Purifier

Network = TypeVar("Network", bound=nn.Module)
CHECKED_BATCHES = (1, 3)


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
    """Reads the bundle in `folder` onto the CPU, as float32, and lets its classifier see a few images.

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
        purifiers[entry.name] = _read_network(folder, entry.weights, partial(Purifier, entry.architecture))
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
        network = _read_network(folder, section.weights, partial(section.architecture.build, section.classes))
    if section.normalization is None:
        return network
    normalized = Normalized(network, section.normalization.mean, section.normalization.std)
    normalized.training = False  # not eval(), which an exported program does not have
    return normalized


def _read_network(folder: Path, weights: WeightsFile, build: Callable[[], Network]) -> Network:
    """Builds a network and gives it its weights; shapes are compared before memory is taken for them."""
    tensors = _read_tensors(folder, weights)
    path = folder / weights.file
    try:
        with torch.device("meta"):
            require_shapes(build().state_dict(), tensors)
        network = build()
        network.load_state_dict(tensors)
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsMismatchError(f"{path}: the weights do not fit the architecture: {error}") from error
    return network.eval().requires_grad_(False)


def gray_images(count: int, size: Preprocessing) -> Tensor:
    """What a network is tried with: `(count, 3, height, width)` float32 of 0.5, channels last as all images come."""
    return torch.full((count, 3, size.height, size.width), 0.5).contiguous(memory_format=torch.channels_last)


def require_shapes(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Compares names and shapes of the tensors of a network.

    Raises:
        ValueError: they differ; the message names the first that does.
    """
    shapes, others = ({name: tuple(one.shape) for name, one in state.items()} for state in (expected, found))
    wrong = sorted(name for name in shapes.keys() | others.keys() if shapes.get(name) != others.get(name))
    if wrong:
        name = wrong[0]
        raise ValueError(f"{name} is {others.get(name, 'missing')}, not {shapes.get(name, 'expected')}")


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
    except (SafetensorError, KeyError) as error:  # KeyError: a number format that torch has no name for
        raise WeightsCorruptError(f"{folder / weights.file}: not a safetensors file: {error}") from error


@torch.inference_mode()
def _check_classifier(folder: Path, manifest: Manifest, classifier: nn.Module) -> None:
    """Sends batches of several sizes through the classifier, since an exported program may have fixed its own."""
    size = manifest.preprocessing
    for count in CHECKED_BATCHES:
        try:
            logits = classifier(gray_images(count, size))
        except Exception as error:  # a user's network may raise anything
            raise ClassifierFailedError(
                f"{folder}: the classifier fails on {count} images of {size.width}x{size.height}: {error}"
            ) from error
        expected = (count, manifest.classifier.classes)
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        if shape != expected:
            raise LabelsMismatchError(f"{folder}: the classifier gives {shape} for {count} images, not {expected}")
        if not logits.isfinite().all():
            raise ClassifierFailedError(f"{folder}: the classifier's logits are not finite numbers")
