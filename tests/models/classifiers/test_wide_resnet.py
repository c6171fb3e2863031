"""Wide ResNets have the published dimensions and take any size of image."""

import pytest
import torch
from pydantic import ValidationError

from models.classifiers import WideResNetConfig


def test_wrn_28_10_has_the_well_known_number_of_parameters() -> None:
    with torch.device("meta"):
        network = WideResNetConfig(depth=28, widening=10).build(10)

    assert sum(parameter.numel() for parameter in network.parameters()) == 36_479_194


@pytest.mark.parametrize("size", [(32, 32), (9, 13), (1, 1)])
def test_there_is_a_logit_for_each_class_whatever_the_size(size: tuple[int, int]) -> None:
    network = WideResNetConfig(depth=10, widening=1).build(7).eval()

    assert network(torch.rand(2, 3, *size)).shape == (2, 7)


def test_a_wide_resnet_is_rebuilt_from_its_stored_config() -> None:
    config = WideResNetConfig(depth=10, widening=2)
    original = config.build(3).eval()
    rebuilt = WideResNetConfig.model_validate_json(config.model_dump_json()).build(3).eval()
    rebuilt.load_state_dict(original.state_dict())
    images = torch.rand(2, 3, 16, 16)

    assert torch.equal(rebuilt(images), original(images))


@pytest.mark.parametrize("depth", [4, 11, 13, 27, 29])
def test_a_depth_that_is_not_six_n_plus_four_is_refused(depth: int) -> None:
    with pytest.raises(ValidationError, match=f"6n \\+ 4.*not {depth}"):
        WideResNetConfig(depth=depth)
