"""Batch norms folded into convolutions."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from models.classifiers import ResNetConfig, TorchvisionConfig, WideResNetConfig
from models.inference.folding import fold_batch_norms


def settled(network: nn.Module) -> nn.Module:
    """With statistics and scales that are not those of a new batch norm, which would change nothing."""
    generator = torch.Generator().manual_seed(0)
    for norm in (one for one in network.modules() if isinstance(one, nn.BatchNorm2d)):
        for tensor, low, high in (
            (norm.running_mean, -1, 1),
            (norm.running_var, 0.5, 2),
            (norm.weight.data, 0.5, 2),
            (norm.bias.data, -1, 1),
        ):
            assert tensor is not None
            tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(one, nn.BatchNorm2d) for one in network.modules())


@pytest.mark.parametrize(
    ("network", "left"),
    [
        (ResNetConfig(width=8, blocks=(1, 1, 1, 1)).build(4), 0),
        (WideResNetConfig(depth=10, widening=1).build(4), 4),  # those before a convolution, and the last
        (TorchvisionConfig(name="resnet18").build(4), 0),
        (TorchvisionConfig(name="vit_b_32").build(4), 0),
    ],
    ids=["resnet", "wide-resnet", "torchvision-resnet18", "torchvision-vit"],
)
@torch.inference_mode()
def test_a_folded_network_gives_the_same_logits(network: nn.Module, left: int) -> None:
    side = 224 if hasattr(network, "encoder") else 32
    images = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(1))
    before = settled(network)(images)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    folded = fold_batch_norms(network)

    assert norms(folded) == left
    torch.testing.assert_close(folded(images), before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert {one.data_ptr() for one in network.parameters()}.isdisjoint(one.data_ptr() for one in folded.parameters())


@torch.inference_mode()
def test_norms_one_after_the_other_are_folded_one_after_the_other() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    images = torch.rand(3, 3, 8, 8)
    before = settled(network)(images)
    folded = fold_batch_norms(network)
    assert norms(folded) == 0
    torch.testing.assert_close(folded(images), before)


class Shared(nn.Module):
    """Reads a convolution twice, and calls one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.read_twice, self.called_twice = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.read_twice(images)
        features = features + self.norm(features)
        return self.other(self.called_twice(features)) + self.called_twice(images)  # type: ignore[no-any-return]


class Tied(nn.Module):
    """Reads the weights of a convolution beside calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.convolution(images)) * self.convolution.weight.sum()  # type: ignore[no-any-return]


class Branching(nn.Module):
    """Looks at its input before it decides, so that it cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

    def forward(self, images: Tensor) -> Tensor:
        if images.mean() > 1:
            return images
        return self.layers(images)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("network", "left"), [(Shared(), 2), (Tied(), 1), (Branching(), 1)], ids=["shared", "tied", "branching"]
)
@torch.inference_mode()
def test_what_cannot_be_folded_is_left_as_it_is(network: nn.Module, left: int) -> None:
    images = torch.rand(3, 3, 8, 8)
    before = settled(network)(images)
    folded = fold_batch_norms(network)
    assert norms(folded) == left
    torch.testing.assert_close(folded(images), before)


@torch.inference_mode()
def test_networks_answer_in_other_threads_while_one_is_folded() -> None:
    served, other = ResNetConfig(width=8).build(4).eval(), ResNetConfig(width=8).build(4).eval()
    images = torch.rand(1, 3, 16, 16)
    expected, folding = served(images), threading.Event()

    def answer() -> int:
        answered = 0
        with torch.inference_mode():
            while not folding.is_set() or not answered:
                torch.testing.assert_close(served(images), expected)
                answered += 1
        return answered

    with ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(answer) for _ in range(2)]
        try:
            folded = [fold_batch_norms(other) for _ in range(20)]
        finally:
            folding.set()
        assert all(one.result() > 0 for one in answers)
    assert [norms(one) for one in folded] == [0] * 20
