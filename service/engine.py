"""The engine: the one place of the service that touches torch. It owns the device, the defense and the classifier."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.bundle import Bundle, Manifest
from models.defenses import build_defense
from models.preprocessing import Pixels
from service.metrics import Metrics
from service.randomness import Randomness

Scores = NDArray[np.float32]
"""`(classes,)` float32: the probability of each class."""

PIXEL_MAX = 255
Network = TypeVar("Network", bound=nn.Module)


class DeviceMissingError(Exception):
    """The device that is asked for does not exist."""


class Engine(Protocol):
    """What the service needs of an engine; tests bring small ones of their own.

    Attributes:
        manifest: of the bundle that is served.
        purifiers: the names of the purifiers that queries go through.
        device: in words.
        precision: of the networks' arithmetic.
    """

    manifest: Manifest
    purifiers: tuple[str, ...]
    device: str
    precision: str

    def warm_up(self) -> None:
        """Runs everything once, so that the first query is as fast as the last; raises if anything fails."""

    def classify(self, images: Sequence[Pixels]) -> list[Scores]:
        """The scores of each image, in order."""


class TorchEngine:
    """Purifies and classifies batches on one device.

    Args:
        bundle: what is served; moved to the device.
        defense: the name of what stands before the classifier.
        device: `cpu`, `cuda` or `cuda:N`.
        precision: `float32` or `bfloat16`.
        max_batch: the largest batch that will come.
        randomness: of the defense's draws.
        metrics: where times and draws are counted.
    """

    def __init__(
        self,
        bundle: Bundle,
        defense: str,
        device: torch.device,
        precision: str,
        max_batch: int,
        randomness: Randomness,
        metrics: Metrics,
    ) -> None:
        self.manifest = bundle.manifest
        self.device = _describe(device)
        self.precision = precision
        self._target = device
        self._max_batch = max_batch
        self._randomness = randomness
        self._metrics = metrics
        self._classifier = _placed(bundle.classifier, device)
        self._defense = _placed(build_defense(defense, bundle), device)
        self.purifiers = self._defense.purifiers
        for name in self.purifiers:
            metrics.purifier_selected.labels(purifier=name)

    def warm_up(self) -> None:
        """Sends the smallest and the largest batch through every purifier and the classifier."""
        size = self.manifest.preprocessing
        for count in (1, self._max_batch):
            pixels = np.zeros((count, size.height, size.width, 3), np.uint8)
            draws = self._draw(count)
            for index in range(max(1, len(self.purifiers))):
                scores = self._infer(pixels, torch.full_like(draws, index), record=False)
                if not np.isfinite(scores).all():
                    raise FloatingPointError("the networks give no finite scores in the warm-up")

    def classify(self, images: Sequence[Pixels]) -> list[Scores]:
        """The scores of each image under fresh draws; images are `(height, width, 3)` uint8 of the bundle's size."""
        draws = self._draw(len(images))
        scores = self._infer(np.stack(images), draws, record=True)
        self._metrics.batch_size.observe(len(images))
        if self.purifiers:
            counts = torch.bincount(draws.flatten(), minlength=len(self.purifiers)).tolist()
            for name, count in zip(self.purifiers, counts, strict=True):
                self._metrics.purifier_selected.labels(purifier=name).inc(count)
        return list(scores)

    def _draw(self, count: int) -> Tensor:
        def random_bytes(columns: int) -> Tensor:
            drawn = bytearray(self._randomness(count * columns))
            return torch.frombuffer(drawn, dtype=torch.uint8).view(count, columns) if drawn else torch.empty(count, 0)

        return self._defense.draw(random_bytes)

    @torch.inference_mode()
    def _infer(self, pixels: NDArray[np.uint8], draws: Tensor, *, record: bool) -> NDArray[np.float32]:
        count = len(pixels) if record else 0
        images = torch.from_numpy(pixels).to(self._target).permute(0, 3, 1, 2).float().div_(PIXEL_MAX)
        reduced = self.precision == "bfloat16"
        with torch.autocast(self._target.type, torch.bfloat16, enabled=reduced):
            with self._stage("purify", count):
                purified = self._defense(images, draws)
            with self._stage("classify", count):
                logits = self._classifier(purified)
        scores: NDArray[np.float32] = torch.softmax(logits.float(), dim=1).cpu().numpy()
        return scores

    @contextmanager
    def _stage(self, stage: str, queries: int) -> Iterator[None]:
        """Times a stage, to its end on the device; each query of a batch spends all of the batch's time in it."""
        begin = time.perf_counter()
        yield
        if self._target.type == "cuda":
            torch.cuda.synchronize(self._target)
        if queries:
            seconds = time.perf_counter() - begin
            self._metrics.device_seconds.labels(stage=stage).inc(seconds)
            duration = self._metrics.stage_duration.labels(stage=stage)
            for _ in range(queries):
                duration.observe(seconds)


def choose_device(name: str) -> torch.device:
    """The device that a setting names; `auto` is CUDA if there is one, else the CPU.

    Raises:
        DeviceMissingError: CUDA is asked for and there is none, or not of that number.
    """
    cuda_devices = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if cuda_devices else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= cuda_devices:
        raise DeviceMissingError(f"device {name} was asked for; this machine has {cuda_devices} CUDA devices")
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """The precision that a setting names; `auto` is bfloat16 where the device computes it natively."""
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu.get_capabilities().get("avx512_bf16", False)
    return "bfloat16" if native else "float32"


def _placed(network: Network, device: torch.device) -> Network:
    """On the device, channels last: the order in which the pixels come, and in which convolutions are fastest."""
    placed: Network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def _describe(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
