"""How many batches a device works on at once, and with how many threads each."""

from dataclasses import dataclass

from service.processors import processors

MOST_ON_A_CPU = 8
"""Python dispatches the operations of all workers one at a time; more of them would wait for one another there."""


@dataclass(frozen=True)
class Workers:
    """The division of a device among batches.

    Attributes:
        count: batches at once.
        threads: of each, on a CPU.
    """

    count: int
    threads: int


def choose_workers(count: int | None, device_type: str) -> Workers:
    """The division that suits a device.

    On a CPU a batch for each processor beats one batch on all of them: threads that share a layer wait for each other
    at its end, and the layers of a small network are short. A GPU shares its layers itself.

    Args:
        count: of the workers; chosen by the device where there is none.
        device_type: of the device that they share, `cpu` or `cuda`.
    """
    ours = processors()
    if count is None:
        count = 1 if device_type == "cuda" else min(ours, MOST_ON_A_CPU)
    return Workers(count, max(1, ours // count))
