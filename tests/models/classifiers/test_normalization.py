"""Normalization is part of the classifier, and no part of its weights."""

import torch
from torch import nn

from models.classifiers.normalization import Normalized

MEAN, STD = (0.5, 0.25, 0.125), (0.5, 0.25, 2.0)


def test_each_channel_is_normalized_before_the_network_sees_it() -> None:
    images = torch.rand(2, 3, 4, 5)

    normalized = Normalized(nn.Identity(), MEAN, STD)(images)

    expected = torch.stack([(images[:, index] - MEAN[index]) / STD[index] for index in range(3)], dim=1)
    torch.testing.assert_close(normalized, expected)


def test_the_weights_are_those_of_the_network_alone() -> None:
    network = nn.Linear(4, 2)

    assert list(Normalized(network, MEAN, STD).state_dict()) == ["network.weight", "network.bias"]


def test_normalization_moves_with_the_network() -> None:
    normalized = Normalized(nn.Identity(), MEAN, STD).to(torch.float64)

    assert normalized(torch.rand(1, 3, 2, 2, dtype=torch.float64)).dtype == torch.float64
