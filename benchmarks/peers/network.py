"""What computes behind a peer: the gateway's engine, or the network as torch runs it."""

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum

import numpy as np
import torch

from models.bundle import read_bundle
from models.device import choose_placement
from models.preprocessing import Pixels
from service.engine import Scores
from service.loading import load_engine
from service.metrics import Metrics
from service.networks import PIXEL_MAX
from service.settings import Settings
from service.workers import choose_workers


class Network(StrEnum):
    """Which of the two."""

    ENGINE = "engine"
    """The gateway's: what is left to compare is the server alone."""
    TORCH = "torch"
    """The module under `torch.inference_mode`, as each server's documentation has it: what a user would begin with."""


def build_network(network: Network, settings: Settings) -> Callable[[Sequence[Pixels]], Iterable[Scores]]:
    """From images to the scores of each, undefended and warm, on the device and in the precision of the settings."""
    if network is Network.TORCH:
        return _TorchNetwork(settings)
    engine = load_engine(settings, Metrics())
    engine.warm_up()
    return lambda images: [one.scores for one in engine.classify(images)]


class _TorchNetwork:
    """The classifier of a bundle as it was read, cast once to bfloat16 if that is the precision, and else float32."""

    def __init__(self, settings: Settings) -> None:
        placement = choose_placement(settings.device, settings.precision)
        torch.set_num_threads(choose_workers(settings.workers, placement.device.type).threads)
        bundle = read_bundle(settings.bundle)
        self._device = placement.device
        self._format = torch.bfloat16 if placement.precision == "bfloat16" else torch.float32
        self._classifier = bundle.classifier.to(self._device, self._format).eval()
        size = bundle.manifest.preprocessing
        for count in (1, settings.max_batch):
            self([np.zeros((size.height, size.width, 3), np.uint8)] * count)

    @torch.inference_mode()
    def __call__(self, images: Sequence[Pixels]) -> Iterable[Scores]:
        pixels = torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2).contiguous() / PIXEL_MAX
        scores: Iterable[Scores] = self._classifier(pixels.to(self._format)).float().softmax(1).cpu().numpy()
        return scores
