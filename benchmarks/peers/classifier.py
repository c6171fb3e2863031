"""The classifier that every peer serves: bytes to pixels to answers, by the gateway's own decoder."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.peers.network import Network, build_network
from models.bundle import read_manifest
from models.preprocessing import Pixels
from service.engine import Scores
from service.images import ImageDecoder
from service.settings import Settings

Answer = dict[str, Any]


class UndefendedClassifier:
    """The bundle of `PURIGATE_BUNDLE` without a defense, warm.

    Args:
        network: what computes.
        share: how many share the processors, threads or processes; each computes on its part of them.

    Attributes:
        max_batch: most images of one call, as the gateway has it.
    """

    def __init__(self, network: Network, share: int = 1) -> None:
        settings = Settings(defense="none", workers=share)
        manifest = read_manifest(settings.bundle)
        self.max_batch = settings.max_batch
        self._top_k = settings.default_top_k
        self._labels = manifest.labels
        self._decoder = ImageDecoder(manifest.preprocessing, settings.max_pixels)
        self._scores = build_network(network, settings)

    def decode(self, content: bytes) -> Pixels:
        """The pixels of an image file; raises as the gateway's decoder does."""
        return self._decoder.decode(content)

    def classify(self, images: Sequence[Pixels]) -> list[Answer]:
        """What the gateway would say of each image."""
        return [self._answer(scores) for scores in self._scores(images)]

    def _answer(self, scores: Scores) -> Answer:
        best = np.argsort(-scores)[: self._top_k].tolist()
        told = [{"label": self._labels[one], "index": one, "score": float(scores[one])} for one in best]
        return {"label": told[0]["label"], "index": best[0], "scores": told}
