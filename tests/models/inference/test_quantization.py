"""Networks whose wide convolutions compute in 8-bit integers."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.classifiers import ResNetConfig, TorchvisionConfig, WideResNetConfig
from models.inference.folding import fold_batch_norms
from models.inference.int8_convolution import Int8Convolution, int8_problem
from models.inference.quantization import quantize_convolutions

pytestmark = pytest.mark.skipif(int8_problem() is not None, reason=f"no int8 here: {int8_problem()}")


def signs(network: nn.Module) -> dict[str, bool]:
    """Whether each convolution of integers takes negative numbers, by name."""
    return {name: one.zero > 0 for name, one in network.named_modules() if isinstance(one, Int8Convolution)}


def convolution() -> nn.Conv2d:
    return nn.Conv2d(16, 16, 3, padding=1)


class Paths(nn.Module):
    """Ways from a rectifier to a convolution, and ways that go around one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.rectified, self.pooled, self.joined = (convolution() for _ in range(4))
        self.added, self.twice = convolution(), convolution()
        self.pool = nn.MaxPool2d(2)
        self.after_both = nn.Conv2d(32, 16, 1)

    def forward(self, features: Tensor) -> Tensor:
        positive = functional.relu(self.first(features))
        hidden = self.rectified(positive)
        both = torch.cat([positive, hidden.relu()], dim=1)
        mixed = torch.cat([self.after_both(both), hidden], dim=1)
        total = self.added(positive + hidden) + self.joined(mixed[:, :16])
        ends = self.pooled(self.pool(positive)), total, self.twice(positive), self.twice(total)
        return torch.stack([end.mean() for end in ends])


def test_convolutions_that_see_no_negative_number_are_found() -> None:
    network = fold_batch_norms(Paths())
    assert quantize_convolutions(network) == 7
    assert signs(network) == {
        "first": True,
        "rectified": False,
        "pooled": False,
        "after_both": False,
        "joined": True,
        "added": True,
        "twice": True,
    }


def test_of_a_network_that_cannot_be_traced_all_may_be_negative() -> None:
    network = nn.Sequential(convolution(), nn.ReLU(), convolution())
    quantize_convolutions(network)
    assert signs(network) == {"0": True, "2": True}


@pytest.mark.parametrize(
    ("architecture", "wide", "share"),
    [
        (ResNetConfig(width=16, blocks=(1, 1, 1, 1)), 11, 0.06),
        (WideResNetConfig(depth=10, widening=2), 9, 0.06),
        (TorchvisionConfig(name="resnet18"), 19, 0.06),
        (TorchvisionConfig(name="densenet121"), 119, 0.3),  # untrained, it says nearly the same of all images
        (TorchvisionConfig(name="vit_b_32"), 0, 1e-6),
    ],
    ids=["resnet", "wide-resnet", "resnet18", "densenet121", "vit"],
)
@torch.inference_mode()
def test_a_network_gives_about_the_same_logits(
    architecture: ResNetConfig | WideResNetConfig | TorchvisionConfig, wide: int, share: float
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = architecture.build(4).eval()
    side = 224 if hasattr(network, "encoder") else 64
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    quantized = fold_batch_norms(network)
    expected = quantized(images)

    assert quantize_convolutions(quantized) == wide

    assert not any(signs(quantized).values()), "all come after a rectifier"
    torch.testing.assert_close(quantized(images), expected, rtol=0, atol=share * float(expected.abs().max()))
