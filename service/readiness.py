"""Whether the service may be asked, and why not; said in one place, read by probes, routes and metrics."""

from typing import Literal

from service.errors import NotReadyError
from service.metrics import Metrics

State = Literal["loading", "ready", "draining", "fault"]
RETRY_AFTER_SECONDS = 5
REASONS: dict[State, str] = {
    "loading": "the service is loading its bundle",
    "draining": "the service is stopping",
    "fault": "the device failed and is being restarted",
}


class Readiness:
    """The state of the service; starts as loading. Draining is final."""

    def __init__(self, metrics: Metrics) -> None:
        self._gauge = metrics.ready
        self.state: State = "loading"

    def change(self, state: State) -> None:
        """Goes over to `state`, unless the service drains."""
        if self.state != "draining":
            self.state = state
            self._gauge.set(state == "ready")

    def require(self) -> None:
        """Lets a request pass if the service is ready.

        Raises:
            NotReadyError: it is not, and why.
        """
        if self.state != "ready":
            raise NotReadyError(REASONS[self.state], RETRY_AFTER_SECONDS)
