"""Encoders take any size, keep it, and can be rebuilt from what is stored of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from models.encoders import EDSRConfig, EncoderConfig, RCANConfig

ADAPTER: TypeAdapter[EncoderConfig] = TypeAdapter(EncoderConfig)
CONFIGS: list[EncoderConfig] = [
    EDSRConfig(features=4, blocks=2),
    EDSRConfig(features=4, blocks=1, unshuffle=2),
    EDSRConfig(features=4, blocks=1, unshuffle=3),
    RCANConfig(features=4, groups=2, blocks=1),
    RCANConfig(features=4, groups=1, blocks=2, unshuffle=2, reduction=2),
    RCANConfig(features=4, groups=1, blocks=1, unshuffle=3),
]
each_config = pytest.mark.parametrize("config", CONFIGS, ids=str)


def encode(encoder: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        features: Tensor = encoder(images)
    return features


def operations(config: EncoderConfig) -> int:
    with FlopCounterMode(display=False) as counter:
        encode(config.build(), torch.zeros(1, 3, 12, 12))
    return int(counter.get_total_flops())


@each_config
@settings(deadline=None, max_examples=15)
@given(height=st.integers(1, 13), width=st.integers(1, 13))
def test_features_have_the_size_of_any_image(config: EncoderConfig, height: int, width: int) -> None:
    features = encode(config.build(), torch.rand(2, 3, height, width))

    assert features.shape == (2, config.features, height, width)


@pytest.mark.parametrize("unshuffle", [2, 3])
def test_an_image_that_unshuffle_does_not_divide_is_encoded_as_if_its_last_row_and_column_went_on(
    unshuffle: int,
) -> None:
    encoder = EDSRConfig(features=4, blocks=1, unshuffle=unshuffle).build()
    images = torch.rand(1, 3, 7, 7)
    missing = -7 % unshuffle
    continued = functional.pad(images, [0, missing, 0, missing], mode="replicate")

    assert torch.equal(encode(encoder, images), encode(encoder, continued)[:, :, :7, :7])


@each_config
def test_an_encoder_is_rebuilt_from_its_stored_config(config: EncoderConfig) -> None:
    stored = ADAPTER.validate_json(config.model_dump_json())

    shapes = {name: tensor.shape for name, tensor in config.build().state_dict().items()}
    assert stored == config
    assert {name: tensor.shape for name, tensor in stored.build().state_dict().items()} == shapes


def test_an_unknown_kind_of_encoder_is_refused() -> None:
    with pytest.raises(ValidationError, match="'swinir'"):
        ADAPTER.validate_json('{"kind": "swinir", "features": 4, "blocks": 1}')


def test_a_misspelled_dimension_is_refused() -> None:
    with pytest.raises(ValidationError, match="blockz"):
        ADAPTER.validate_json('{"kind": "edsr", "features": 4, "blocks": 1, "blockz": 2}')


@pytest.mark.parametrize("dimension", ["features", "blocks", "unshuffle"])
def test_a_dimension_of_zero_is_refused(dimension: str) -> None:
    with pytest.raises(ValidationError, match=dimension):
        ADAPTER.validate_python({"kind": "edsr", "features": 4, "blocks": 1, dimension: 0})


def test_folding_two_by_two_pixels_costs_less_than_half_of_the_plain_encoder() -> None:
    plain = EDSRConfig(features=32, blocks=4)

    assert operations(plain.model_copy(update={"unshuffle": 2})) < operations(plain) / 2


def test_edsr_sees_no_further_than_its_convolutions_reach() -> None:
    encoder = EDSRConfig(features=4, blocks=1).build()
    images = torch.rand(1, 3, 12, 12)
    changed = images.clone()
    changed[..., 0] += 1
    reach = 4  # one convolution in the head, two in the block, one after it

    assert torch.equal(encode(encoder, changed)[..., reach + 1 :], encode(encoder, images)[..., reach + 1 :])
    assert not torch.allclose(encode(encoder, changed)[..., reach], encode(encoder, images)[..., reach])


def test_rcan_weighs_its_channels_by_the_whole_image() -> None:
    encoder = RCANConfig(features=16, groups=1, blocks=1, reduction=2).build()
    images = torch.rand(1, 3, 32, 32)
    changed = images.clone()
    changed[..., 0] += 1

    assert not torch.equal(encode(encoder, changed)[..., -1], encode(encoder, images)[..., -1])
