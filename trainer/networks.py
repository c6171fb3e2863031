"""The networks of a run: trained here, from nothing or from a file, or a user's own as its file has it."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from torch import Tensor, nn

from models.bundle import BundleError, read_manifest
from models.bundle.manifest import Normalization
from models.bundle.reader import gray_images, require_shapes
from models.classifiers import ClassifierConfig, ExportedConfig, TorchvisionConfig
from models.classifiers.exported import read_program
from models.classifiers.normalization import Normalized
from models.preprocessing import Preprocessing
from trainer.classifier import ClassifierTraining
from trainer.errors import NetworkError, first_line
from trainer.inference import BATCH, PIXELS

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Where checkpoints of common training scripts keep the weights among other things."""
PARALLEL_PREFIX = "module."
COUNTER = ".num_batches_tracked"
"""Of a batch norm; unused once trained, and not in files of the first versions of PyTorch."""
AS_IS = Normalization(mean=(0, 0, 0), std=(1, 1, 1))
PROBE_BATCHES = (1, 3)
EXPORT_ANEW = "export it for images of this size, with dynamic_shapes for the batch, as docs/training.md shows"


class NetworkRecipe(BaseModel):
    """A network that is trained from nothing, a user's own, or a user's own that is trained on.

    Attributes:
        architecture: ours, torchvision's by its name, or `exported`: a `torch.export` program, which needs `weights`.
        normalization: what is subtracted from, then divided out of, each channel of an image in [0, 1]; none where the
            network takes pixels as they are.
        seed: of its first weights where no file has them, the order of the images and their augmentation.
        training: how it is trained; none for a network that stays as its file has it.
        weights: the file of a network that was trained elsewhere: a state dict (`.safetensors`, or as `torch.save`
            wrote it), or a `.pt2` archive of `torch.export.save`. Beside the manifest of a bundle, its history is kept.
            With `training`, they are the weights that the training begins with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: ClassifierConfig
    normalization: Normalization | None = None
    seed: int = Field(default=0, ge=-(2**63), lt=2**64)
    training: ClassifierTraining | None = None
    weights: Path | None = None

    @model_validator(mode="after")
    def _has_an_origin(self) -> Self:
        if self.training is None and self.weights is None:
            raise ValueError("give `training`, the file of its `weights`, or both to train those on")
        if isinstance(self.architecture, ExportedConfig) and self.training:
            raise ValueError("an exported program cannot be trained here: name its file as `weights`, no `training`")
        return self

    @cached_property
    def content(self) -> bytes:
        """The bytes of the `weights` file.

        Raises:
            NetworkError: it cannot be read.
        """
        assert self.weights is not None
        try:
            return self.weights.read_bytes()
        except OSError as error:
            raise NetworkError(f"{self.weights}: {error.strerror}") from error

    def origin(self) -> dict[str, JsonValue]:
        """What decides the weights, beside the images."""
        if self.weights is None:
            return self.model_dump(mode="json", exclude={"weights"})
        decides = {"architecture", "normalization"} | ({"training", "seed"} if self.training else set())
        return {**self.model_dump(mode="json", include=decides), "weights_sha256": self._digest()}

    def history(self) -> JsonValue:
        """Where weights that were trained elsewhere come from, if they lie in a bundle: what its manifest says.

        If that bundle had them from another one and did not train them on, it is the other's.
        """
        if self.weights is None:
            return None
        try:
            manifest = read_manifest(self.weights.parent)
        except BundleError:
            return None
        if manifest.classifier.weights.sha256 != self._digest():
            return None
        networks = manifest.provenance.get("networks")
        classifier = networks.get("classifier") if isinstance(networks, dict) else None
        if isinstance(classifier, dict) and not classifier.get("training") and classifier.get("history"):
            return classifier["history"]
        return {"bundle": manifest.name, "version": manifest.version, "provenance": manifest.provenance}

    def _digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def build(self, classes: int) -> nn.Module:
        """The network without its weights: takes `(N, 3, H, W)` floats in [0, 1], gives `(N, classes)` logits."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self._normalized(self._built(classes))

    def begin(self, classes: int, preprocessing: Preprocessing) -> nn.Module:
        """The network as its training begins, with the weights of its file if it has one.

        Raises:
            NetworkError: as `read`.
        """
        if self.weights is None:
            return self.build(classes)
        return self.read(classes, preprocessing).requires_grad_().train()

    def read(self, classes: int, preprocessing: Preprocessing, batches: Sequence[int] = ()) -> nn.Module:
        """The network with the weights of its file, frozen and in evaluation mode.

        Args:
            classes: how many there are.
            preprocessing: gives the size of an image.
            batches: further numbers of images that it will be shown at once, beside those of serving and measuring.

        Raises:
            NetworkError: the file cannot be read, does not fit the architecture, or the network does not take batches
                of every size or give one logit for each of `classes`.
        """
        if not isinstance(self.architecture, ExportedConfig):
            network = frozen(self._weighted(classes))
            self._probe(network, classes, preprocessing, PROBE_BATCHES[-1])
            return network
        network = frozen(self._program())
        for images in dict.fromkeys((*PROBE_BATCHES, *sorted({*batches, measured_batch(preprocessing)}))):
            self._probe(network, classes, preprocessing, images)
        return network

    def rehearse(self, classes: int, preprocessing: Preprocessing) -> None:
        """Shows the network that is to be trained images as they are served, and of every size of its training.

        Raises:
            NetworkError: as `read`, or it cannot be trained on one of these sizes.
        """
        assert self.training is not None
        network = self.begin(classes, preprocessing)
        images = min(PROBE_BATCHES[-1], self.training.batch_size)
        self._probe(network.eval(), classes, preprocessing, images)
        with torch.random.fork_rng(devices=[]):  # dropout draws
            for side in dict.fromkeys(self.training.resolutions()):
                self._probe(network.train(), classes, Preprocessing(resize=side, height=side, width=side), images)

    def _told(self) -> str:
        """What a mistake is told of: the file, or the architecture where there is none."""
        if self.weights is not None:
            return str(self.weights)
        return self.architecture.name if isinstance(self.architecture, TorchvisionConfig) else self.architecture.kind

    @torch.no_grad()
    def _probe(self, network: nn.Module, classes: int, preprocessing: Preprocessing, images: int) -> None:
        told = f"{images} image{'s' if images > 1 else ''}"
        try:
            logits = network(gray_images(images, preprocessing))
        except Exception as error:  # a user's network may raise anything
            size = f"{preprocessing.width}x{preprocessing.height}"
            todo = f"; {EXPORT_ANEW}" if isinstance(self.architecture, ExportedConfig) else ""
            raise NetworkError(f"{self._told()}: fails on {told} of {size}: {first_line(error)}{todo}") from error
        if not isinstance(logits, Tensor):
            raise NetworkError(f"{self._told()}: gives a {type(logits).__name__}, not one tensor of logits")
        if logits.shape != (images, classes):
            raise NetworkError(
                f"{self._told()}: gives {tuple(logits.shape)} for {told}, but there are {classes} "
                "classes; data.labels can name classes that the images do not have"
            )
        if not logits.isfinite().all():
            raise NetworkError(f"{self._told()}: gives logits that are no finite numbers, for {told} all gray")

    def _program(self) -> nn.Module:
        try:
            return self._normalized(read_program(self.content))
        except Exception as error:  # PyTorch's loader has no error type of its own
            raise NetworkError(
                f"{self.weights}: not an exported program that can be served: {first_line(error)}"
            ) from error

    def _built(self, classes: int) -> nn.Module:
        """In the memory format of the images: a convolution would else turn its weights around each time it runs."""
        assert not isinstance(self.architecture, ExportedConfig)
        return self.architecture.build(classes).to(memory_format=torch.channels_last)

    def _weighted(self, classes: int) -> nn.Module:
        tensors = self._tensors()
        network = self._built(classes)
        counters = {name: tensor for name, tensor in network.state_dict().items() if name.endswith(COUNTER)}
        tensors = {**counters, **tensors}
        try:
            require_shapes(network.state_dict(), tensors)
        except ValueError as error:
            raise NetworkError(
                f"{self.weights}: does not fit the architecture and {classes} classes: {error}"
            ) from error
        network.load_state_dict(tensors)
        return self._normalized(network)

    def _tensors(self) -> dict[str, Tensor]:
        assert self.weights is not None
        written = self.content
        try:
            if self.weights.suffix == ".safetensors":
                return safetensors.torch.load(written)
            content = torch.load(io.BytesIO(written), map_location="cpu", weights_only=True)
        except Exception as error:  # PyTorch's unpickler raises whatever its opcodes stumble over
            raise NetworkError(f"{self.weights}: not a file of weights: {first_line(error)}") from error
        tensors = _unwrapped(content)
        if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
            raise NetworkError(f"{self.weights}: holds no state dict")
        return {name.removeprefix(PARALLEL_PREFIX): tensor for name, tensor in tensors.items()}

    def _normalized(self, network: nn.Module) -> nn.Module:
        normalization = self.normalization or AS_IS
        return Normalized(network, normalization.mean, normalization.std)


def measured_batch(preprocessing: Preprocessing) -> int:
    """The largest number of images that a network is shown at once when a pool is measured."""
    return max(1, min(BATCH, PIXELS // (preprocessing.height * preprocessing.width)))


def frozen(network: nn.Module) -> nn.Module:
    """The network in evaluation mode, whose weights need no gradients; also an exported one, which has no `eval()`."""
    for module in network.modules():
        module.training = False
    return network.requires_grad_(False)


def require_gradients(network: nn.Module, preprocessing: Preprocessing, what: str) -> None:
    """Checks that images can be attacked by way of a network.

    Raises:
        NetworkError: no gradient reaches the image.
    """
    image = gray_images(PROBE_BATCHES[-1], preprocessing).requires_grad_()
    try:
        torch.autograd.grad(network(image).float().sum(), image)
    except RuntimeError as error:
        raise NetworkError(
            f"the {what} gives no gradients to attack images with ({first_line(error)}); "
            "name another [surrogate], or export the program without torch.no_grad"
        ) from error


def _unwrapped(content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        return {}
    for name in WRAPPERS:
        if isinstance(content.get(name), Mapping):
            return _unwrapped(content[name])
    return content
