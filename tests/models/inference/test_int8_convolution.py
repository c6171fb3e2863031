"""Convolutions in 8-bit integers."""

import platform

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.inference.int8_convolution import Int8Convolution, int8_problem, is_wide

WITH_ONEDNN = platform.machine() in {"x86_64", "AMD64"} and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
pytestmark = pytest.mark.skipif(
    int8_problem() is not None and not WITH_ONEDNN, reason=f"no int8 here: {int8_problem()}"
)

BYTES = 255
MIDDLE = 128
WEIGHTS = 64


def some(*shape: int, seed: int = 0, signed: bool = True) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values if signed else values.relu()


def in_integers(convolution: nn.Conv2d, features: Tensor, *, signed: bool) -> Tensor:
    """What it should compute, in the plain words of the definition and in float64, which holds every sum."""
    zero = MIDDLE if signed else 0
    ranges = features.abs().amax((1, 2, 3), keepdim=True)
    levels = (features * ((BYTES - zero) / ranges) + (zero + 0.5)).floor() - zero
    scales = convolution.weight.abs().amax((1, 2, 3)) / WEIGHTS
    integers = (convolution.weight / scales.view(-1, 1, 1, 1)).round()
    sums = nn.functional.conv2d(
        levels.double(),
        integers.double(),
        None,
        convolution.stride,
        convolution.padding,
        convolution.dilation,
    )
    outputs = sums * scales.double().view(1, -1, 1, 1) * (ranges.double() / (BYTES - zero))
    return outputs if convolution.bias is None else outputs + convolution.bias.double().view(1, -1, 1, 1)


@settings(deadline=None, max_examples=40)
@given(
    channels=st.tuples(st.integers(16, 40), st.integers(16, 40)),
    size=st.tuples(st.integers(5, 12), st.integers(5, 12)),
    kernel=st.sampled_from([(1, 1), (3, 3), (3, 1)]),
    stride=st.integers(1, 2),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 1)),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
    signed=st.booleans(),
    channels_last=st.booleans(),
)
@torch.no_grad()
def test_it_computes_what_its_integers_say(  # noqa: PLR0913, PLR0917 - the dimensions of a convolution
    channels: tuple[int, int],
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    bias: bool,
    signed: bool,
    channels_last: bool,
) -> None:
    convolution = nn.Conv2d(*channels, kernel, stride, padding, dilation, bias=bias)
    convolution.weight.copy_(some(*convolution.weight.shape, seed=1))
    features = some(3, channels[0], *size, signed=signed) * torch.tensor([0.01, 1, 300]).view(3, 1, 1, 1)
    if channels_last:
        features = features.to(memory_format=torch.channels_last)

    computed = Int8Convolution(convolution, signed=signed)(features)

    expected = in_integers(convolution, features, signed=signed)
    largest = expected.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-6)
    torch.testing.assert_close(computed / largest, expected / largest, rtol=0, atol=1e-5, check_dtype=False)


@pytest.mark.parametrize("signed", [False, True])
@torch.no_grad()
def test_rounding_is_all_that_it_loses(signed: bool) -> None:
    convolution = nn.Conv2d(64, 64, 3, padding=1)
    features = some(4, 64, 8, 8, signed=signed)
    expected = convolution(features)
    lost = Int8Convolution(convolution, signed=signed)(features) - expected
    assert lost.std() < expected.std() * (0.02 if signed else 0.015)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@torch.no_grad()
def test_the_largest_sums_do_not_saturate(sign: float) -> None:
    convolution = nn.Conv2d(512, 16, 3, padding=1, bias=False)
    convolution.weight.fill_(sign)
    features = torch.ones(1, 512, 4, 4)
    torch.testing.assert_close(
        Int8Convolution(convolution, signed=False)(features), convolution(features), rtol=1e-3, atol=0
    )


@torch.no_grad()
def test_an_image_gets_the_same_numbers_in_any_batch() -> None:
    quantized = Int8Convolution(nn.Conv2d(32, 48, 3, padding=1), signed=True)
    features = some(9, 32, 7, 7) * torch.logspace(-3, 3, 9).view(-1, 1, 1, 1)
    together = quantized(features)
    assert all(torch.equal(quantized(features[index : index + 1])[0], together[index]) for index in range(9))


@torch.no_grad()
def test_an_image_of_zeros_gives_the_bias() -> None:
    convolution = nn.Conv2d(16, 16, 3, padding=1)
    outputs = Int8Convolution(convolution, signed=False)(torch.zeros(1, 16, 4, 4))
    assert convolution.bias is not None
    torch.testing.assert_close(outputs, convolution.bias.view(1, -1, 1, 1).expand_as(outputs))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@torch.no_grad()
def test_features_that_are_not_finite_are_told_for_their_own_image_alone(value: float, signed: bool) -> None:
    if value < 0 and not signed:
        pytest.skip("not a feature that is never negative")
    quantized = Int8Convolution(nn.Conv2d(16, 16, 3, padding=1), signed=signed)
    features = some(3, 16, 6, 6, signed=signed)
    expected = quantized(features)
    broken = features.clone()
    broken[1, 5, 2, 2] = value

    outputs = quantized(broken)

    assert not outputs[1].isfinite().all()
    assert torch.equal(outputs[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(3, 64, 3),
        nn.Conv2d(64, 3, 1),
        nn.Conv2d(64, 64, 3, groups=2),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(64, 64, 3, padding="same"),
        nn.ConvTranspose2d(64, 64, 3),
        nn.Linear(64, 64),
    ],
    ids=str,
)
def test_other_modules_are_left_alone(module: nn.Module) -> None:
    assert not is_wide(module)


def test_wrong_sums_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    convolve = Int8Convolution._convolve
    monkeypatch.setattr(Int8Convolution, "_convolve", lambda *arguments: convolve(*arguments) / 2)
    assert int8_problem() == "its integers are wrong here"


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, AttributeError])
def test_a_missing_kernel_is_told(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def fail(*_arguments: object) -> Tensor:
        raise error("no such kernel\nsome more")

    monkeypatch.setattr(Int8Convolution, "_convolve", fail)
    assert int8_problem() == "no such kernel"
