"""The decoder is LIIF's multilayer perceptron over 3x3 features, evaluated once a pixel."""

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from models.decoder import ENSEMBLE_CODES, OTHERS_WEIGHT, DecoderConfig, LocalImplicitDecoder

FEATURES = 5


@pytest.fixture
def decoder() -> LocalImplicitDecoder:
    return LocalImplicitDecoder(FEATURES, DecoderConfig(hidden=(8, 6)))


def perceptron(decoder: LocalImplicitDecoder, features: Tensor) -> Tensor:
    """The same weights as fully connected layers over the unfolded features of each pixel."""
    count, _, height, width = features.shape
    values = functional.unfold(features, 3, padding=1).transpose(1, 2)
    convolutions = [layer for layer in decoder.layers if isinstance(layer, nn.Conv2d)]
    for layer in convolutions[:-1]:
        values = torch.relu(functional.linear(values, layer.weight.flatten(1), layer.bias))
    colors = functional.linear(values, convolutions[-1].weight.flatten(1), convolutions[-1].bias)
    return colors.transpose(1, 2).reshape(count, 3, height, width)


def operations(decode: Callable[[Tensor], Tensor]) -> int:
    with FlopCounterMode(display=False) as counter:
        decode(torch.rand(1, FEATURES, 10, 12))
    return int(counter.get_total_flops())


def test_the_decoder_equals_a_perceptron_over_unfolded_features(decoder: LocalImplicitDecoder) -> None:
    features = torch.randn(2, FEATURES, 7, 9)

    torch.testing.assert_close(decoder(features), perceptron(decoder, features), rtol=1e-5, atol=1e-5)


def test_the_decoder_evaluates_its_perceptron_once_a_pixel(decoder: LocalImplicitDecoder) -> None:
    multiplications = FEATURES * 9 * 8 + 8 * 6 + 6 * 3

    assert operations(decoder) == 2 * multiplications * 10 * 12


def test_the_local_ensemble_evaluates_its_perceptron_four_times_a_pixel(decoder: LocalImplicitDecoder) -> None:
    assert operations(decoder.ensemble) == 4 * operations(decoder)


def test_at_the_center_of_a_pixel_the_local_ensemble_is_its_own_evaluation(decoder: LocalImplicitDecoder) -> None:
    features = torch.randn(2, FEATURES, 7, 9)

    torch.testing.assert_close(decoder.ensemble(features), decoder(features))


def test_where_codes_are_weighed_by_the_areas_of_liif_the_own_one_counts_alone() -> None:
    """The published rule, at the center of a pixel: areas to the codes around it, each given to the one opposite."""
    from_center = {(down, right): abs(2 * down * 2 * right) + 1e-9 for down in (0, 1) for right in (0, 1)}
    weights = {(down, right): from_center[1 - down, 1 - right] for down, right in from_center}

    assert weights[0, 0] / sum(weights.values()) == pytest.approx(1)
    assert [weights[code] / sum(weights.values()) for code in ENSEMBLE_CODES[1:]] == pytest.approx([OTHERS_WEIGHT] * 3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1)])
def test_the_local_ensemble_keeps_the_size_of_the_smallest_images(
    decoder: LocalImplicitDecoder, shape: tuple[int, int]
) -> None:
    assert decoder.ensemble(torch.rand(2, FEATURES, *shape)).shape == (2, 3, *shape)


def test_a_hidden_layer_without_channels_is_refused() -> None:
    with pytest.raises(ValidationError, match="hidden"):
        DecoderConfig(hidden=(8, 0))
