"""ResNets have the published dimensions and take any size of image."""

import pytest
import torch
from pydantic import ValidationError

from models.classifiers import ResNetConfig


def test_resnet_18_has_the_well_known_number_of_parameters() -> None:
    with torch.device("meta"):
        network = ResNetConfig(width=64, blocks=(2, 2, 2, 2)).build(10)

    assert sum(parameter.numel() for parameter in network.parameters()) == 11_173_962


@pytest.mark.parametrize("size", [(32, 32), (9, 13), (1, 1)])
def test_there_is_a_logit_for_each_class_whatever_the_size(size: tuple[int, int]) -> None:
    network = ResNetConfig(width=4, blocks=(1, 2, 1, 1)).build(7).eval()

    assert network(torch.rand(2, 3, *size)).shape == (2, 7)


def test_a_resnet_is_rebuilt_from_its_stored_config() -> None:
    config = ResNetConfig(width=4, blocks=(1, 2, 1, 1))
    original = config.build(3).eval()
    rebuilt = ResNetConfig.model_validate_json(config.model_dump_json()).build(3).eval()
    rebuilt.load_state_dict(original.state_dict())
    images = torch.rand(2, 3, 16, 16)

    assert torch.equal(rebuilt(images), original(images))


@pytest.mark.parametrize("blocks", [[2, 2, 2], [2, 2, 2, 2, 2], [2, 0, 2, 2]])
def test_a_resnet_has_blocks_in_each_of_its_four_stages(blocks: list[int]) -> None:
    with pytest.raises(ValidationError, match="blocks"):
        ResNetConfig.model_validate({"width": 4, "blocks": blocks})
