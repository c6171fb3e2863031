"""Convolutions with fewer multiplications give what plain ones give."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.inference.winograd import FEWEST_CHANNELS, WinogradConvolution, is_suited, use_winograd

TOLERANCE = 3e-5
"""Of the largest output."""


def convolution(inputs: int = FEWEST_CHANNELS, outputs: int = FEWEST_CHANNELS, **settings: object) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, 3, **({"padding": 1} | settings))  # type: ignore[arg-type]


def features(images: int, channels: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(images, channels, height, width, generator=torch.Generator().manual_seed(1))


def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the features that go through products of tiles."""
    seen: list[tuple[int, ...]] = []
    computed = torch.bmm

    def noting(points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(points.shape))
        return computed(points, weights)

    monkeypatch.setattr(torch, "bmm", noting)
    return seen


@settings(deadline=None, max_examples=25)
@given(
    images=st.integers(1, 5),
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    outputs=st.sampled_from([FEWEST_CHANNELS, FEWEST_CHANNELS + 5]),
    bias=st.booleans(),
    last=st.booleans(),
)
@torch.inference_mode()
def test_it_computes_what_the_plain_one_computes(
    images: int, height: int, width: int, outputs: int, bias: bool, last: bool
) -> None:
    plain = convolution(outputs=outputs, bias=bias)
    seen = features(images, FEWEST_CHANNELS, height, width)
    seen = seen.contiguous(memory_format=torch.channels_last) if last else seen
    expected = plain.double()(seen.double())
    found = WinogradConvolution(plain.float())(seen)
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))


@pytest.mark.parametrize(("side", "share"), [(16, 36 / 144), (4, 16 / 36)])
@torch.inference_mode()
def test_it_multiplies_less_often(side: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = products(monkeypatch)
    WinogradConvolution(convolution())(features(4, FEWEST_CHANNELS, side, side))
    assert sum(shape[0] * shape[1] for shape in seen) == 4 * side * side * 9 * share


@torch.inference_mode()
def test_what_an_image_gives_does_not_depend_on_those_beside_it() -> None:
    narrow = WinogradConvolution(convolution())
    given = features(11, FEWEST_CHANNELS, 8, 8)
    expected = torch.cat([narrow(given[first : first + 2]) for first in range(0, 10, 2)])
    torch.testing.assert_close(narrow(given)[:10], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("images", "side"),
    [
        pytest.param(1, 4, id="four tiles of 4 x 4"),
        pytest.param(1, 8, id="four tiles of 6 x 6"),
        pytest.param(32, 5, id="mostly border"),
    ],
)
@torch.inference_mode()
def test_where_it_saves_nothing_it_is_the_plain_one(images: int, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = products(monkeypatch)
    plain = convolution()
    given = features(images, FEWEST_CHANNELS, side, side)
    assert torch.equal(WinogradConvolution(plain)(given), plain(given))
    assert not seen


def test_gradients_are_those_of_the_plain_one() -> None:
    plain = convolution().requires_grad_(False)
    given = features(2, FEWEST_CHANNELS, 16, 16).requires_grad_()
    gradients = [
        torch.autograd.grad(one(given).square().sum(), given)[0] for one in (plain, WinogradConvolution(plain))
    ]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@torch.inference_mode()
def test_what_is_no_number_spoils_its_own_image_alone(number: float) -> None:
    given = features(3, FEWEST_CHANNELS, 8, 8)
    expected = WinogradConvolution(convolution())(given)
    given[1, 0, 3, 3] = number
    found = WinogradConvolution(convolution())(given)
    assert not found[1].isfinite().all()
    assert torch.equal(found[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize(
    "other",
    [
        convolution(inputs=64),
        convolution(outputs=64),
        convolution(stride=2),
        convolution(dilation=2, padding=2),
        convolution(padding=0),
        convolution(padding_mode="reflect"),
        convolution(groups=2),
        nn.Conv2d(128, 128, 1),
        nn.Conv2d(128, 128, 5, padding=2),
        nn.ConvTranspose2d(128, 128, 3, padding=1),
        nn.Linear(128, 128),
    ],
    ids=repr,
)
def test_others_are_left_alone(other: nn.Module) -> None:
    assert not is_suited(other)


def test_those_of_a_network_are_replaced_wherever_they_are() -> None:
    shared = convolution(padding="same")
    inner = nn.Sequential(convolution(), nn.ReLU())
    network = nn.Sequential(nn.Conv2d(3, FEWEST_CHANNELS, 3, padding=1), shared, inner, shared)
    names = network.state_dict().keys()
    given = features(2, 3, 16, 16)
    with torch.inference_mode():
        expected = network(given)
        assert use_winograd(network) == 2
        torch.testing.assert_close(network(given), expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))
    kinds = [
        name for name, one in network.named_modules(remove_duplicate=False) if isinstance(one, WinogradConvolution)
    ]
    assert kinds == ["1", "2.0", "3"]
    assert network.get_submodule("1") is network.get_submodule("3")
    assert network.state_dict().keys() == names
