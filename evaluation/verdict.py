"""What an attack left of a defense: the three figures, image by image, asked outside of the attack's budget."""

from pydantic import BaseModel, ConfigDict, NonNegativeInt
from torch import Tensor

from evaluation.criteria import misread
from evaluation.oracle import Oracle
from evaluation.recheck import CHECKS
from evaluation.target import Target
from evaluation.trial import Trial

DRAWS = 20


class Outcome(BaseModel):
    """What became of one image.

    Attributes:
        index: of the image in its data set.
        first_hit: the number of the attack's query that first hit, counted from 1; none if none did.
        spent: queries that the attack asked about it.
        checks_wrong: of 9 new queries about what the attack returned, how many were misread.
        draws_wrong: the same of 20 further ones.
        clean_draws_wrong: of 20 queries about the clean image, how many were misread.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: NonNegativeInt
    first_hit: int | None
    spent: NonNegativeInt
    checks_wrong: NonNegativeInt
    draws_wrong: NonNegativeInt
    clean_draws_wrong: NonNegativeInt

    @property
    def confirmed(self) -> bool:
        """Whether a majority of the checks was misread."""
        return 2 * self.checks_wrong > CHECKS


def judge(target: Target, trial: Trial, returned: Tensor, indices: list[int]) -> list[Outcome]:
    """Asks about what an attack returned and about the clean images.

    Args:
        target: what was attacked.
        trial: the attack.
        returned: `(N, 3, H, W)` in the ball.
        indices: N, of the images in their data set.
    """
    asked = CHECKS + DRAWS
    wrong = _wrong(target, trial, returned, asked)
    clean = _wrong(target, trial, trial.images, DRAWS)
    return [
        Outcome(
            index=index,
            first_hit=int(trial.first_hits[row]) or None,
            spent=int(trial.oracle.spent[row]),
            checks_wrong=int(wrong[row, :CHECKS].sum()),
            draws_wrong=int(wrong[row, CHECKS:].sum()),
            clean_draws_wrong=int(clean[row].sum()),
        )
        for row, index in enumerate(indices)
    ]


def _wrong(target: Target, trial: Trial, images: Tensor, times: int) -> Tensor:
    """Whether each of `times` answers about each of `(N, 3, H, W)` images is wrong: `(N, times)` bool."""
    count = len(images)
    oracle = Oracle(target, count, times)
    rows = trial.oracle.spent.new_tensor(range(count))
    asked = 1 if target.deterministic else times
    answers = oracle.labels(rows, images[:, None].expand(-1, asked, -1, -1, -1))
    return misread(answers, trial.labels).expand(-1, times).cpu()
