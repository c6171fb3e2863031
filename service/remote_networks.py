"""Networks that are in other processes, behind one channel for each batch that may be under way."""

import atexit
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from models.preprocessing import Pixels
from service.network_calls import Channel
from service.networks import Draws, Inferred

ENDING_SECONDS = 5.0
"""For channels to close by themselves; they may be amid a batch."""


class RemoteNetworks:
    """Networks behind channels; each batch goes through one of them, and its thread sleeps until the answer is there.

    Nothing is started before the first warm-up; each warm-up starts again what has ended.

    Args:
        channels: as many as there are workers.
        device: of the networks, in words.
        precision: of their arithmetic.
        patience: seconds that they have to close, all together, before they are broken off.
    """

    def __init__(
        self, channels: Sequence[Channel], device: str, precision: str, patience: float = ENDING_SECONDS
    ) -> None:
        self.device = device
        self.precision = precision
        self._channels = channels
        self._patience = patience
        self._free: SimpleQueue[Channel] = SimpleQueue()
        for channel in channels:
            self._free.put(channel)
        atexit.register(self.close)  # before multiprocessing's own, which would wait for its processes

    def warm_up(self, purifiers: tuple[str, ...], max_batch: int) -> None:
        """See `Networks`.

        Raises:
            NetworksEndedError: a channel could not be opened.
            BundleError: the bundle cannot be loaded at its other end.
        """

        def warm_up(channel: Channel) -> None:
            channel.start()
            channel.ask("warm_up", purifiers, max_batch)

        with ThreadPoolExecutor(len(self._channels)) as pool:
            list(pool.map(warm_up, self._channels))

    def infer(self, images: Sequence[Pixels], draws: Draws | None) -> Inferred:
        """See `Networks`.

        Raises:
            NetworksEndedError: the channel closed meanwhile, or before.
        """
        with self._one() as channel:
            inferred: Inferred = channel.ask("infer", images, draws)
        return inferred

    def purify(self, images: Sequence[Pixels], draws: Draws) -> NDArray[np.bool_]:
        """See `Networks`.

        Raises:
            NetworksEndedError: the channel closed meanwhile, or before.
        """
        with self._one() as channel:
            finite: NDArray[np.bool_] = channel.ask("purify", images, draws)
        return finite

    def close(self) -> None:
        """Closes the channels for good; whoever waits for an answer longer than there is patience gets an error."""
        deadline = time.monotonic() + self._patience
        for channel in self._channels:
            channel.retire()
        for channel in self._channels:
            channel.end(deadline)
        atexit.unregister(self.close)

    @contextmanager
    def _one(self) -> Iterator[Channel]:
        channel = self._free.get()
        try:
            yield channel
        finally:
            self._free.put(channel)
