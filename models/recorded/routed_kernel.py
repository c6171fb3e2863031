"""The kernel of routed convolutions, in Triton: for each window a matrix product with the weights of its owner."""

import torch
import triton
import triton.language as tl
from torch import Tensor

SMALLEST_SIDE = 16
"""Of the products that a matrix unit takes; narrower ones are filled up with zeros."""
PIXELS = 64
"""That one program computes, of one window."""
MOST_OUTPUTS = 64
"""Channels that one program computes."""


def convolve(windows: Tensor, weights: Tensor, biases: Tensor, owners: Tensor, side: int, *, rectified: bool) -> Tensor:
    """Convolves each window with its owner's weights; keeps its size, as if zeros lay around it.

    Args:
        windows: `(M, in, h, w)`.
        weights: `(K, side * side, in, out)` of the dtype of the windows.
        biases: `(K, out)` of that dtype.
        owners: `(M,)` int32 in [0, K), or negative: then that window of the result is left as memory was.
        side: of the square kernel, odd.
        rectified: whether negative values become 0.

    Returns:
        `(M, out, h, w)`, channels last. Products are summed in float32.
    """
    windows = windows.contiguous(memory_format=torch.channels_last)
    count, inputs, height, width = windows.shape
    outputs = weights.shape[-1]
    shape = (count, outputs, height, width)
    convolved = torch.empty(shape, dtype=windows.dtype, device=windows.device, memory_format=torch.channels_last)
    columns = min(_power(outputs), MOST_OUTPUTS)
    rows = max(SMALLEST_SIDE, min(PIXELS, triton.next_power_of_2(height * width)))
    grid = (count, triton.cdiv(height * width, rows), triton.cdiv(outputs, columns))
    with torch.cuda.device_of(windows):  # type: ignore[no-untyped-call] # Triton launches on the current one
        _convolve[grid](
            windows,
            weights,
            biases,
            owners,
            convolved,
            height,
            width,
            inputs,
            outputs,
            _power(inputs),
            columns,
            side,
            rectified,
            rows,
        )
    return convolved


def _power(channels: int) -> int:
    return max(SMALLEST_SIDE, triton.next_power_of_2(channels))


@triton.jit
def _convolve(  # type: ignore[no-untyped-def]
    windows,
    weights,
    biases,
    owners,
    convolved,
    height,
    width,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    SIDE: tl.constexpr,
    RECTIFIED: tl.constexpr,
    ROWS: tl.constexpr,
):
    """One block of pixels of one window, and of its output channels.

    `ROWS` pixels by `COLUMNS` channels; for each of the `SIDE` by `SIDE` taps, `DEPTH` input channels are multiplied at
    once, of which `INPUTS` are there.
    """
    window = tl.program_id(0)
    owner = tl.load(owners + window)
    if owner >= 0:
        pixels = height * width
        pixel = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
        output = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
        depth = tl.arange(0, DEPTH)
        known = output < OUTPUTS
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        for tap in tl.static_range(SIDE * SIDE):
            row = pixel // width + (tap // SIDE - SIDE // 2)
            column = pixel % width + (tap % SIDE - SIDE // 2)
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            place = window.to(tl.int64) * pixels + row * width + column
            seen = tl.load(
                windows + place[:, None] * INPUTS + depth[None, :],
                mask=inside[:, None] & (depth < INPUTS)[None, :],
                other=0.0,
            )
            weight = tl.load(
                weights + ((owner * SIDE * SIDE + tap) * INPUTS + depth[:, None]) * OUTPUTS + output[None, :],
                mask=(depth < INPUTS)[:, None] & known[None, :],
                other=0.0,
            )
            total = tl.dot(seen, weight, total, input_precision="ieee")
        total += tl.load(biases + owner * OUTPUTS + output, mask=known, other=0.0).to(tl.float32)[None, :]
        if RECTIFIED:
            total = tl.maximum(total, 0.0)
        place = window.to(tl.int64) * pixels + pixel
        tl.store(
            convolved + place[:, None] * OUTPUTS + output[None, :],
            total.to(convolved.dtype.element_ty),
            mask=(pixel < pixels)[:, None] & known[None, :],
        )
