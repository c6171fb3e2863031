"""Classifiers of torchvision come by their names."""

import pytest
import torch
from pydantic import ValidationError

from models.classifiers import TorchvisionConfig


def test_a_torchvision_classifier_has_a_logit_for_each_class() -> None:
    network = TorchvisionConfig(name="squeezenet1_1").build(5).eval()

    with torch.inference_mode():
        assert network(torch.rand(2, 3, 48, 48)).shape == (2, 5)


def test_a_torchvision_classifier_is_rebuilt_from_its_stored_config() -> None:
    config = TorchvisionConfig(name="squeezenet1_1")
    original = config.build(3).eval()
    rebuilt = TorchvisionConfig.model_validate_json(config.model_dump_json()).build(3).eval()
    rebuilt.load_state_dict(original.state_dict())
    images = torch.rand(1, 3, 48, 48)

    with torch.inference_mode():
        assert torch.equal(rebuilt(images), original(images))


@pytest.mark.parametrize("name", ["resnet51", "ResNet18", "", "fasterrcnn_resnet50_fpn", "r3d_18"])
def test_a_name_that_is_no_torchvision_image_classifier_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"no classifier called {name!r}"):
        TorchvisionConfig(name=name)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_a_network_with_auxiliary_heads_is_refused_with_what_can_be_done(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} has auxiliary heads .*: export it as a program instead"):
        TorchvisionConfig(name=name)
