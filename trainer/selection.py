"""Which of the trained purifiers make the pool: the most different of those that are accurate enough."""

from decimal import Decimal
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.purifier import Purifier
from trainer.errors import SelectionError
from trainer.images import LabeledImages
from trainer.inference import outputs


class Selection(BaseModel):
    """How a pool is chosen.

    Attributes:
        keep: how many purifiers make the pool.
        most_lost: the largest loss of accuracy, as a share of images in [0, 1], that a purifier may cause when it works
            alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep: int = Field(ge=2)
    most_lost: Annotated[float, Field(ge=0, le=1)] = 0.01


def choose(
    selection: Selection,
    classifier: nn.Module,
    purifiers: dict[str, Purifier],
    images: LabeledImages,
    device: torch.device,
) -> tuple[str, ...]:
    """The names of the purifiers that make the pool, in the order of `purifiers`.

    Args:
        selection: the settings.
        classifier: the one that is served, frozen.
        purifiers: the candidates by name, frozen.
        images: clean, none of the test images: a pool chosen on those would look better on them than it is.
        device: where the networks run.

    Raises:
        SelectionError: too few are accurate enough.
    """
    classifier.to(device)
    answers = {}
    for name, purifier in purifiers.items():
        purifier.to(device)
        answers[name] = outputs(nn.Sequential(purifier, classifier), images, device)
    undefended = _right(outputs(classifier, images, device), images)
    lost = {name: undefended - _right(answer, images) for name, answer in answers.items()}
    most = Decimal(str(selection.most_lost)) * len(images)  # in floats, 0.29 of 100 images are fewer than 29
    good = [name for name in purifiers if lost[name] <= most]
    if len(good) < selection.keep:
        told = ", ".join(f"{name} {100 * count / len(images):.2f}" for name, count in lost.items())
        raise SelectionError(
            f"only {len(good)} purifiers cost at most {100 * selection.most_lost:g} points of accuracy, "
            f"pool.selection.keep asks for {selection.keep}; points lost: {told}"
        )
    kept = most_diverse(torch.stack([answers[name] for name in good]), selection.keep)
    return tuple(name for index, name in enumerate(good) if index in kept)


def most_diverse(answers: Tensor, keep: int) -> set[int]:
    """Chooses purifiers one by one, each time the one that raises the variance of the logits most.

    Args:
        answers: `(K, N, classes)` logits of the same N images behind each of K purifiers.
        keep: how many of them; at least two, at most K.

    Returns:
        Their indices.
    """
    flat = answers.double().flatten(1)
    distance = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist") ** 2
    chosen = set(divmod(int(distance.argmax()), len(distance)))
    while len(chosen) < keep:
        gains = distance[sorted(chosen)].sum(0)
        gains[sorted(chosen)] = -1
        chosen.add(int(gains.argmax()))
    return chosen


def _right(logits: Tensor, images: LabeledImages) -> int:
    """How many of `images` `(N, classes)` logits label correctly."""
    return int((logits.argmax(1) == images.labels).sum())
