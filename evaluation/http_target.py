"""A running gateway as the target: 8-bit PNG images over HTTP, scores or labels as its policy gives them."""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from evaluation.draws import draws_differ
from evaluation.errors import EvaluationError
from evaluation.gateway import Gateway, GatewayInformation, GatewayResult

LEVELS = 255
DECIMALS = 2
"""Of the scores that a gateway rounds."""


@dataclass(frozen=True)
class Policy:
    """What of the scores a key is told, as far as one answer shows.

    Attributes:
        told: how many scores.
        classes: how many there are.
        rounded: whether the scores are rounded.
    """

    told: int
    classes: int
    rounded: bool

    @classmethod
    def of(cls, result: GatewayResult, classes: int) -> "Policy":
        """The policy that gave this result when it was asked for all scores."""
        scores = [one.score for one in result.scores]
        return cls(len(scores), classes, bool(scores) and all(one == round(one, DECIMALS) for one in scores))

    @property
    def whole(self) -> bool:
        """Whether the key is told all there is."""
        return self.told == self.classes and not self.rounded

    def __str__(self) -> str:
        if not self.told:
            return "label"
        words = ["rounded"] if self.rounded else []
        words += [] if self.told == self.classes else [f"top {self.told}"]
        return " ".join(words) or "scores"


class HTTPTarget:
    """A gateway, asked in batches; what it refuses or does not answer is asked again, as `Gateway` says.

    An image is sent at the size of the classifier's input. A gateway whose bundle scales that up before it crops sees
    it scaled. One query about a gray image is asked at the start, to learn what the key is told.

    Args:
        url: of the gateway.
        key: an API key, where the gateway asks for one.
        sleep: waits so many seconds.
        sticky: whether its draws are, which it does not tell: then the same image always gets the same answer.

    Attributes:
        policy: what the key is told.
        sticky: whether it has draws, and they are.

    Raises:
        EvaluationError: no gateway answers there, or it does not answer this key.
    """

    levels: int | None = LEVELS

    def __init__(
        self,
        url: str,
        key: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        *,
        sticky: bool = False,
    ) -> None:
        self._gateway = Gateway(url, key, sleep)
        told = self.information
        draws = draws_differ(told.defense, told.purifiers)
        self.sticky = sticky and draws
        self.deterministic = sticky or not draws
        self.coarse = told.precision != "float32"
        self._classes = len(told.labels)
        try:
            gray = torch.full((3, told.input.height, told.input.width), 0.5)
            (result,) = self._gateway.ask([png(gray)], self._classes)
        except EvaluationError:
            self._gateway.close()
            raise
        self.policy = Policy.of(result, self._classes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gateway.close()

    @property
    def information(self) -> GatewayInformation:
        """What the gateway serves."""
        return self._gateway.information

    @property
    def unanswered(self) -> int:
        """Queries that got no answer and were asked again; the gateway may have counted them as well."""
        return self._gateway.unanswered

    def scores(self, images: Tensor) -> Tensor:
        """The scores of all classes; those that its policy does not tell, as `row` has them.

        Raises:
            EvaluationError: it gives labels only; then nothing was asked.
        """
        if not self.policy.told:
            raise EvaluationError("the gateway tells this key labels alone; choose an attack on labels")
        results = self._gateway.ask([png(one) for one in images], self._classes)
        return torch.stack([row(result, self._classes) for result in results])

    def labels(self, images: Tensor) -> Tensor:
        """The best class of each image."""
        results = self._gateway.ask([png(one) for one in images], 1)
        return torch.tensor([result.index for result in results])


def row(result: GatewayResult, classes: int) -> Tensor:
    """The scores of all classes, `(classes,)`, of which a gateway may have told the best alone.

    What is told is kept. The other classes share evenly what is left of 1, but none gets more than the least that is
    told, which is no better than theirs. The class that the gateway names is the best: where scores tie, as rounded
    ones do, it is put ahead by the least step of float32.

    Raises:
        EvaluationError: it told no scores, or of a class that is none.
    """
    told = {one.index: one.score for one in result.scores}
    if not told or max(*told, result.index) >= classes:
        raise EvaluationError(f"the gateway tells scores of the classes {sorted(told)}, of {classes}")
    left = max(0.0, 1 - sum(told.values())) / max(1, classes - len(told))
    scores = torch.full((classes,), min(left, *told.values()))
    scores[list(told)] = torch.tensor(list(told.values()))
    if scores.argmax() != result.index:
        scores[result.index] = torch.nextafter(scores.max(), torch.tensor(torch.inf))
    return scores


def png(image: Tensor) -> bytes:
    """`(3, H, W)` floats in [0, 1] as the bytes of an 8-bit PNG."""
    pixels = (image * LEVELS).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
