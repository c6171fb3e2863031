"""Whether the service may be asked, and why not; said in one place, read by probes, routes and metrics."""

import asyncio
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
        self._loaded = asyncio.Event()
        self.state: State = "loading"

    async def loaded(self) -> None:
        """Waits until it is no longer loading, whatever came of it."""
        await self._loaded.wait()

    def change(self, state: State) -> None:
        """Goes over to `state`, unless the service drains."""
        if self.state != "draining":
            self.state = state
            self._loaded.set()
            self._gauge.set(state == "ready")

    def require(self) -> None:
        """Lets a request pass if the service is ready.

        Raises:
            NotReadyError: it is not, and why.
        """
        if self.state != "ready":
            raise NotReadyError(REASONS[self.state], RETRY_AFTER_SECONDS)
