"""Parts of a CUDA graph that do not wait for one another."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Branches:
    """Streams for what can run at once, of all graphs whose memory is shared.

    They are the same in every graph, or none could reuse another's memory.
    """

    def __init__(self) -> None:
        self._streams: list[torch.cuda.Stream] = []

    def __call__(self, parts: Sequence[Callable[[], Tensor]], device: torch.device) -> list[Tensor]:
        """The result of each part; in a graph that is being recorded they are branches, else one comes after the other.

        Args:
            parts: none reads what another writes.
            device: that they run on; if it is a GPU, the current one.
        """
        if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
            return [part() for part in parts]
        trunk = torch.cuda.current_stream()
        while len(self._streams) < len(parts):
            self._streams.append(torch.cuda.Stream())  # type: ignore[no-untyped-call]
        forked: list[torch.cuda.Stream] = []
        results: list[Tensor] = []
        try:
            for branch, part in zip(self._streams, parts, strict=False):  # other graphs may have more of them
                branch.wait_stream(trunk)
                forked.append(branch)
                with torch.cuda.stream(branch):
                    results.append(part())
        finally:  # a recording that fails can only be ended when its branches have joined, and no stream but those may
            for branch in forked:
                trunk.wait_stream(branch)
        return results
