"""Clocks of the work on a device: when each stage of it began and ended, without making the device wait."""

import time
from itertools import pairwise
from typing import Protocol

import torch

MILLISECONDS = 1000


class DeviceClock(Protocol):
    """Marks moments in the work of one batch, in order."""

    def mark(self) -> None:
        """Marks this moment of the device's work."""

    def seconds(self) -> list[float]:
        """The times between one mark and the next; asked when the device is done with the batch."""


class HostClock:
    """For a device that works while its caller waits: the clock of the machine."""

    def __init__(self) -> None:
        self._marks: list[float] = []

    def mark(self) -> None:
        """Marks now."""
        self._marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """The times between the marks."""
        return [end - begin for begin, end in pairwise(self._marks)]


class CUDAClock:
    """For a GPU, which works behind its caller: events in its own queue.

    Args:
        device: whose current stream is marked.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device)
        self._marks: list[torch.cuda.Event] = []

    def mark(self) -> None:
        """Marks the end of what was queued so far."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        self._marks.append(event)

    def seconds(self) -> list[float]:
        """The times between the marks, all of which the device has passed."""
        return [begin.elapsed_time(end) / MILLISECONDS for begin, end in pairwise(self._marks)]


def device_clock(device: torch.device) -> DeviceClock:
    """A clock for one batch on `device`."""
    return CUDAClock(device) if device.type == "cuda" else HostClock()
