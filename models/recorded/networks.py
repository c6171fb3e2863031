"""Networks as they answer queries on a GPU: each call of a batch that is not too large replays what was recorded."""

import logging

from torch import Tensor, nn

from models.defenses.defense import Defense
from models.defenses.disco import DISCO, DISCOEnsemble
from models.defenses.puridefense import PuriDefense
from models.device import Placement, send
from models.inference.preparation import classifier_for_inference, defense_for_inference, is_exported
from models.recorded.puridefense import RecordedPuriDefense
from models.recorded.replay import Function, GraphRecorder, Replayed
from models.recorded.routed_convolution import routing_problem

log = logging.getLogger(__name__)

LARGEST = 1024
"""Images of a batch that is recorded: so many keep a GPU busy for longer than it takes to launch their kernels."""


def recorded_classifier(classifier: nn.Module, placement: Placement) -> Function:
    """A classifier that is prepared for inference, and recorded where that can be.

    Args:
        classifier: as a bundle holds it. A program that was exported is not recorded: it may do what no graph can hold.
        placement: where it runs, and how precisely; on a CPU nothing is recorded.
    """
    prepared = classifier_for_inference(classifier, placement)
    if placement.device.type != "cuda" or is_exported(classifier):
        return prepared
    return Replayed(prepared, LARGEST, GraphRecorder(placement.device))


def recorded_defense(defense: Defense, placement: Placement) -> Function:
    """A defense that is prepared for inference, and recorded where that can be; takes images and draws of the CPU.

    A pool is routed first, since what it launches would else follow the draws; for that it has to compute in bfloat16.
    Its pixels are then those of the defense but for rounding. Where routing is impossible, a warning says why, and each
    purifier is called by itself.

    Args:
        defense: what was drawn of it, from the very one, is for this function.
        placement: where it runs, and how precisely; on a CPU nothing is recorded.
    """
    prepared = defense_for_inference(defense, placement)
    if placement.device.type != "cuda":
        return prepared
    if isinstance(prepared, PuriDefense):
        if placement.precision != "bfloat16":
            return prepared
        if problem := routing_problem(placement.device):
            log.warning("purifiers are called one by one, which is slow on a GPU: %s", problem)
            return prepared
        return RecordedPuriDefense(prepared, LARGEST, GraphRecorder(placement.device))
    if not isinstance(prepared, DISCO | DISCOEnsemble):
        return prepared
    replayed = Replayed(prepared, LARGEST, GraphRecorder(placement.device))

    def transform(images: Tensor, draws: Tensor) -> Tensor:
        return replayed(images, send(draws, images.device))

    return transform
