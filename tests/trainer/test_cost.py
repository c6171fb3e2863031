"""Cost is counted as it is by hand."""

from pathlib import Path

import pytest
from torch import nn

from models.bundle import Bundle, read_bundle
from models.purifier import Purifier
from trainer.cost import count_cost


@pytest.fixture
def bundle(bundle_folder: Path) -> Bundle:
    """The toy bundle, 32x32 pixels and a halo of 2 around 2x2 patches, with a classifier that is easily counted."""
    bundle = read_bundle(bundle_folder)
    classifier = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(5 * 16 * 16, 4))
    return Bundle(bundle.manifest, classifier, bundle.purifiers)


def test_a_multiplication_and_an_addition_are_two_operations(bundle: Bundle) -> None:
    convolution, linear = 16 * 16 * 5 * 3 * 9, 5 * 16 * 16 * 4

    assert count_cost(bundle).classifier == 2 * (convolution + linear)


def test_a_purifier_costs_its_convolutions(bundle: Bundle) -> None:
    purifier = bundle.purifiers["fgsm-edsr"]
    by_layer = 0

    def count(layer: nn.Conv2d, _: object, output: object) -> None:
        nonlocal by_layer
        assert hasattr(output, "numel")
        by_layer += 2 * output.numel() * layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]

    hooks = [one.register_forward_hook(count) for one in purifier.modules() if isinstance(one, nn.Conv2d)]
    cost = count_cost(bundle)
    for hook in hooks:
        hook.remove()

    assert cost.purifiers["fgsm-edsr"] == by_layer


def test_the_pool_costs_its_mean_purifier_on_all_windows(bundle: Bundle) -> None:
    cost = count_cost(bundle)

    assert cost.windows == round(4 * 18 * 18 / 32**2, 4)
    assert cost.pool == pytest.approx(4 * 18 * 18 / 32**2 * sum(cost.purifiers.values()) / 4, abs=1)


def test_the_number_of_purifiers_does_not_change_the_cost(bundle: Bundle) -> None:
    one: Purifier = bundle.purifiers["fgsm-edsr"]
    few, many = (
        Bundle(bundle.manifest, bundle.classifier, {str(index): one for index in range(count)}) for count in (1, 12)
    )

    assert count_cost(few).pool == count_cost(many).pool
