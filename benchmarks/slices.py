"""A slice: what one system did in a few seconds, and its rate from the times of its answers."""

from bisect import bisect_right
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt

from benchmarks.percentiles import percentile

MILLI = 1e-3

DISTURBING = 0.25
"""So many processors in the hands of others spoil a slice."""

Answer = tuple[float, float]
"""The point in time of an answer, and the seconds that it took."""


class Slice(BaseModel):
    """What one system did in a few seconds.

    Attributes:
        answered: requests answered 200, or images classified, from which the rate is reckoned.
        failed: requests that were not answered 200, in the warm-up too: how many by status, or by the error's name.
        per_second: the rate of the answers.
        p50_ms: the median time to an answer; none offline.
        p99_ms: the same of the slowest hundredth.
        client_ms: processor time of the client for each request.
        others: how many of our processors others kept busy meanwhile; none where nobody looked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    answered: NonNegativeInt
    failed: dict[str, NonNegativeInt] = {}
    per_second: NonNegativeFloat
    p50_ms: NonNegativeFloat | None = None
    p99_ms: NonNegativeFloat | None = None
    client_ms: NonNegativeFloat | None = None
    others: NonNegativeFloat | None = None

    @property
    def disturbed(self) -> bool:
        """Whether others took so much of the machine that the slice says little."""
        return self.others is not None and self.others > DISTURBING

    @classmethod
    def of(
        cls,
        answers: Sequence[Answer],
        begin: float,
        end: float,
        connections: int,
        failed: dict[str, int],
        client_seconds: float,
    ) -> "Slice":
        """That of the time from `begin` to `end`.

        Args:
            answers: all that there were, in the order in which they came; some before and after that time, too.
            begin: point in time.
            end: point in time.
            connections: that asked.
            failed: how many requests by their failure.
            client_seconds: of its processor time for each request.
        """
        ends = [one for one, _ in answers]
        first = edge(ends, begin, connections)
        last = edge(ends, end, connections, first)
        spent = [latency / MILLI for _, latency in answers[first + 1 : last + 1]]
        return cls(
            answered=len(spent),
            failed=failed,
            per_second=len(spent) / (ends[last] - ends[first]) if spent else 0.0,
            p50_ms=percentile(spent, 50),
            p99_ms=percentile(spent, 99),
            client_ms=client_seconds / MILLI,
        )


def edge(ends: Sequence[float], point: float, connections: int, after: int = -1) -> int:
    """The index of the answer near a point in time before the longest pause.

    A batch is answered at once. Counted from pause to pause there are whole batches only, whatever the point.

    Args:
        ends: points in time of answers, in their order.
        point: in time.
        connections: that asked; more answers than these cannot come without a pause.
        after: the index after which it has to be; that is given back where no answer with a pause behind it is left.
    """
    until = min(max(bisect_right(ends, point), after + 2), len(ends) - 1)
    near = range(max(after + 1, until - connections), until)
    return max(near, key=lambda index: ends[index + 1] - ends[index], default=max(after, 0))
