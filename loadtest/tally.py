"""What came of the requests of a run, or of a part of one."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # to import locust is to patch the sockets and threads of the process
    from locust.stats import RequestStats

REFUSED = " refused"


@dataclass(frozen=True)
class Tally:
    """Counts of requests.

    Attributes:
        milliseconds: how many took how long; of those that were answered or failed. Locust rounds to two digits.
        failures: of these.
        refused: those that were told to come back later and are no failure; none unless that was asked for.
    """

    milliseconds: Counter[int]
    failures: int
    refused: int

    @classmethod
    def of(cls, stats: "RequestStats") -> "Tally":
        """All that happened until now, on every worker that has reported."""
        milliseconds: Counter[int] = Counter()
        failures = refused = 0
        for entry in stats.entries.values():
            if entry.method != "POST":  # whatever is got, it is no query
                continue
            if entry.name.endswith(REFUSED):
                refused += entry.num_requests
            else:
                milliseconds.update(entry.response_times)
                failures += entry.num_failures
        return cls(milliseconds, failures, refused)

    def since(self, earlier: "Tally") -> "Tally":
        """What came after `earlier`."""
        later = Counter(self.milliseconds)
        later.subtract(earlier.milliseconds)
        return Tally(+later, self.failures - earlier.failures, self.refused - earlier.refused)

    @property
    def requests(self) -> int:
        """Those that were answered or failed."""
        return self.milliseconds.total()

    @property
    def answered(self) -> int:
        """Those that got what they asked for."""
        return self.requests - self.failures

    @property
    def error_rate(self) -> float:
        """Failures over requests; 0 if there were none."""
        return self.failures / self.requests if self.requests else 0.0

    def percentile(self, percent: float) -> int:
        """The milliseconds within which `percent` of the requests were answered or failed; 0 if there were none."""
        below = 0
        for milliseconds, count in sorted(self.milliseconds.items()):
            below += count
            if below >= self.requests * percent / 100:
                return milliseconds
        return 0
