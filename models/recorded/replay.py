"""CUDA graphs: what a network launches, recorded once for each size of batch and then launched in one go."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

Function = Callable[..., Tensor]
"""Of tensors on one GPU whose first dimensions are the batch; what it launches depends on their shapes alone."""

WARM_UPS = 2
"""Calls before the recording, in which libraries choose and compile their kernels."""


class Recording(Protocol):
    """A recorded call.

    Attributes:
        inputs: the tensors that it reads.
        output: the tensor that it writes.
    """

    inputs: tuple[Tensor, ...]
    output: Tensor

    def replay(self) -> None:
        """Repeats the call, on what the inputs hold now."""


class Recorder(Protocol):
    """Makes recordings, which may share their memory.

    Attributes:
        one_at_a_time: held while one of them is made, replayed or read.
    """

    one_at_a_time: threading.Lock

    def __call__(self, function: Function, inputs: tuple[Tensor, ...]) -> Recording:
        """Records one call, of inputs that belong to the recording from now on."""


class GraphRecording:
    """A CUDA graph of one call, on the current device.

    Args:
        function: is called a few times.
        inputs: belong to the recording from now on.
        memory: a pool that it shares with recordings of which none runs, or is read, at the same time.
        stream: that it is recorded on; the same for all that share a pool, or they cannot reuse each other's memory.
    """

    def __init__(self, function: Function, inputs: tuple[Tensor, ...], memory: Any, stream: torch.cuda.Stream) -> None:
        self.inputs = inputs
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    function(*inputs)
        finally:  # where it fails, too: the memory of the inputs may go to who comes next on the current stream
            torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Of this thread alone: while a bundle is reloaded, another thread serves the one before.
        with torch.cuda.graph(self._graph, pool=memory, stream=stream, capture_error_mode="thread_local"):
            self.output = function(*inputs)

    def replay(self) -> None:
        """See `Recording`."""
        self._graph.replay()


class GraphRecorder:
    """Records CUDA graphs that share their memory.

    Args:
        device: that they run on. It is made the current one of the thread that records: a graph that is recorded on
            another device than its kernels run on is empty.
    """

    def __init__(self, device: torch.device) -> None:
        self.one_at_a_time = threading.Lock()
        self._device = device
        with torch.cuda.device(device):
            self._memory = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, function: Function, inputs: tuple[Tensor, ...]) -> Recording:
        """Records one call."""
        with torch.cuda.device(self._device):
            return GraphRecording(function, inputs, self._memory, self._stream)


class Replayed:
    """A function whose calls are replays; several threads may call it, which it lets in one at a time.

    All of them have to be on one CUDA stream, as threads are that choose none: a replay is launched and not waited for,
    and only the order of that stream keeps the next one from its inputs and its memory.

    Each size of batch is rounded up to a power of two, or to the largest, and recorded when it first comes. The rows
    beyond a batch hold what earlier ones left there; nothing of it is given out.

    Args:
        function: is called itself with batches larger than the largest.
        largest: batch that is recorded.
        record: makes the recordings; what else it records is not replayed meanwhile, and the function not called.
    """

    def __init__(self, function: Function, largest: int, record: Recorder) -> None:
        self._function = function
        self._largest = largest
        self._record = record
        self._recordings: dict[tuple[torch.Size, ...], Recording] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """What the function says of the inputs.

        Raises:
            ValueError: they are not of one batch.
        """
        count = len(inputs[0])
        if lengths := {len(one) for one in inputs} - {count}:
            raise ValueError(f"inputs for {count} and for {lengths.pop()} images")
        with self._record.one_at_a_time:
            if not 0 < count <= self._largest:
                return self._function(*inputs)
            recording = self._recording(count, inputs)
            for held, given in zip(recording.inputs, inputs, strict=True):
                held[:count].copy_(given, non_blocking=True)
            recording.replay()
            return recording.output[:count].clone()

    def rows(self, count: int) -> int:
        """Of what the function is called with for a batch of `count`."""
        return min(rung(count), self._largest) if 0 < count <= self._largest else count

    def _recording(self, count: int, inputs: tuple[Tensor, ...]) -> Recording:
        rows = self.rows(count)
        shapes = tuple(torch.Size((rows, *one.shape[1:])) for one in inputs)
        if shapes not in self._recordings:
            self._recordings[shapes] = self._record(self._function, tuple(_repeated(one, rows) for one in inputs))
        return self._recordings[shapes]


def rung(count: int) -> int:
    """The smallest power of two that is not below `count`."""
    return 1 << (count - 1).bit_length()


def ladder(largest: int) -> Iterator[int]:
    """One size of batch for each recording that batches of up to `largest` need."""
    size = 1
    while size < largest:
        yield size
        size *= 2
    yield largest


def _repeated(tensor: Tensor, rows: int) -> Tensor:
    """So many rows of real values, with the same order of dimensions in memory."""
    held = tensor.new_empty_strided((rows, *tensor.shape[1:]), tensor.stride())
    return held.copy_(tensor[torch.arange(rows, device=tensor.device) % len(tensor)])
