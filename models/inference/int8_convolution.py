"""A convolution in 8-bit integers, for CPUs: about half the time of float32.

Weights have a scale for each output channel and features one for each image of a batch, found as they come (dynamic
quantization, Jacob et al. 2018, section 2). So nothing has to be calibrated, an image's answer does not depend on what
shares its batch, and a scale is never too small for an image that nobody foresaw.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

LARGEST_WEIGHT = 64
"""Weights take 7 bits, and a bit: processors without VNNI add two products of a byte and a weight in 16 bits, which
saturate silently. 2 * 255 * 64 fits; with weights up to 127 sums were off by half (oneDNN, AVX2)."""
LARGEST_BYTE = 255
MIDDLE = 128
"""The byte that stands for zero where features have either sign."""
SMALLEST_RANGE = 1e-30
"""Of the features of an image, so that an image of zeros can be divided by it."""
FEWEST_CHANNELS = 16
"""Narrower convolutions take less time than making bytes of their input. The first one, which sees the pixels, and the
last one of a purifier are among them."""


class Int8Convolution(nn.Module):
    """Computes what a `Conv2d` computes, but for rounding.

    Takes and gives `(N, C, H, W)` floats. Integers are summed exactly, so the same image gives the same numbers in any
    batch. Features that are not finite give numbers that are not finite, for their own image alone. Its packed weights
    can be neither copied nor pickled.

    Args:
        convolution: in float32, one that `is_wide`; stays as it is.
        signed: whether its input may be negative. If not, one more bit is left for its features.
    """

    def __init__(self, convolution: nn.Conv2d, *, signed: bool) -> None:
        super().__init__()
        self.zero = MIDDLE if signed else 0
        self.steps = float(LARGEST_BYTE - self.zero)
        self.shift = self.zero + 0.5  # bytes are cut off, not rounded
        self.stride, self.padding, self.dilation = (
            list(convolution.stride),
            [int(side) for side in convolution.padding],
            list(convolution.dilation),
        )
        weights = convolution.weight.detach()
        largest = weights.abs().amax((1, 2, 3)).clamp_min(SMALLEST_RANGE)
        scales = largest / LARGEST_WEIGHT
        integers = (weights / scales.view(-1, 1, 1, 1)).round().to(torch.int8)
        # Plain attributes, for nothing moves or casts them: what is packed has an order that only oneDNN knows.
        self.packed: Tensor = torch.ops.onednn.qconv_prepack(
            integers, scales, 1.0, self.zero, self.stride, self.padding, self.dilation, 1, None
        )
        self.scales = scales
        self.zero_points = torch.zeros(len(scales), dtype=torch.int64)
        self.bias = None if convolution.bias is None else convolution.bias.detach().view(1, -1, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        magnitudes = features.abs() if self.zero else features
        ranges = magnitudes.amax((1, 2, 3), keepdim=True).clamp_min(SMALLEST_RANGE)
        sums = self._convolve((features * (self.steps / ranges)).add_(self.shift).to(torch.uint8))
        outputs = sums.mul_(ranges / self.steps)
        return outputs if self.bias is None else outputs.add_(self.bias)

    def _convolve(self, features: Tensor) -> Tensor:
        """The sums of bytes times weights, in units of the weights."""
        summed: Tensor = torch.ops.onednn.qconv2d_pointwise(
            features,
            1.0,
            self.zero,
            self.packed,
            self.scales,
            self.zero_points,
            None,
            self.stride,
            self.padding,
            self.dilation,
            1,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return summed


def is_wide(module: nn.Module) -> bool:
    """Whether a module is a convolution that is worth it, and that integers can compute as it does."""
    return (
        type(module) is nn.Conv2d
        and module.groups == 1
        and min(module.in_channels, module.out_channels) >= FEWEST_CHANNELS
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def int8_problem() -> str | None:
    """Why this processor or this PyTorch cannot compute an `Int8Convolution`; nothing if it can.

    It tries one, with the largest weights and bytes there are, of either sign.
    """
    convolution = skip_init(nn.Conv2d, FEWEST_CHANNELS, FEWEST_CHANNELS, 3, padding=1, bias=False)  # type: ignore[no-untyped-call]
    nn.init.ones_(convolution.weight)
    features = torch.ones(1, FEWEST_CHANNELS, 4, 4)
    try:
        with torch.inference_mode():
            pairs = [
                (Int8Convolution(convolution, signed=signed)(seen), convolution(seen))
                for signed, seen in ((False, features), (True, features), (True, -features))
            ]
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        return str(error).splitlines()[0]
    right = all(torch.allclose(computed, expected, rtol=1e-3) for computed, expected in pairs)
    return None if right else "its integers are wrong here"
