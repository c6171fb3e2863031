"""Recordings where there is no GPU: calls that are repeated as a CUDA graph would."""

import threading

from torch import Tensor

from models.recorded.replay import Function


class Tape:
    """Repeats a call on the tensors that it was recorded with, into the same output."""

    def __init__(self, function: Function, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = inputs
        self.function = function
        self.rows = len(inputs[0])
        self.output = function(*inputs)

    def replay(self) -> None:
        self.output.copy_(self.function(*self.inputs))


class Recorder:
    """Keeps what it recorded."""

    def __init__(self) -> None:
        self.one_at_a_time = threading.Lock()
        self.tapes: list[Tape] = []

    def __call__(self, function: Function, inputs: tuple[Tensor, ...]) -> Tape:
        self.tapes.append(Tape(function, inputs))
        return self.tapes[-1]
