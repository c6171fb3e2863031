"""The served classifier guides a purifier towards answers like those on clean images, and is not taught itself."""

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from models.decoder import DecoderConfig
from models.encoders import EDSRConfig
from models.purifier import Purifier, PurifierConfig
from trainer.guidance import Guidance, Guide


@pytest.fixture
def classifier() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 4)).eval().requires_grad_(False)


@pytest.fixture
def purifier() -> Purifier:
    """A new one: the identity."""
    return Purifier(PurifierConfig(encoder=EDSRConfig(features=4, blocks=1), decoder=DecoderConfig(hidden=(4,))))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(8, 3, 6, 6)


@pytest.fixture
def guide(classifier: nn.Module, fabric: Fabric) -> Guide:
    return Guide(Guidance(weight=0.5, images=4), classifier, fabric)


def test_clean_images_behind_the_identity_cost_nothing(guide: Guide, purifier: Purifier, images: Tensor) -> None:
    assert guide.loss(purifier, images, images).item() == pytest.approx(0, abs=1e-6)


def test_attacked_images_behind_the_identity_cost_the_weighted_divergence_of_the_answers(
    guide: Guide, classifier: nn.Module, purifier: Purifier, images: Tensor
) -> None:
    attacked = torch.rand_like(images)

    loss = guide.loss(purifier, attacked, images)

    clean, moved = (functional.softmax(classifier(one), dim=1) for one in (images, attacked))
    torch.testing.assert_close(loss, 0.5 * (clean * (clean.log() - moved.log())).sum(1).mean())


def test_the_gradient_reaches_the_purifier_and_nothing_else(
    guide: Guide, purifier: Purifier, images: Tensor, classifier: nn.Module
) -> None:
    classifier.requires_grad_()
    targets = images.clone().requires_grad_()

    guide.loss(purifier, torch.rand_like(images), targets).backward()  # type: ignore[no-untyped-call]

    correction = purifier.decoder.layers[-1]
    assert isinstance(correction, nn.Conv2d)
    assert correction.weight.grad is not None
    assert float(correction.weight.grad.abs().amax()) > 0
    assert targets.grad is None


def test_following_the_guide_brings_the_answers_closer(guide: Guide, purifier: Purifier, images: Tensor) -> None:
    attacked = torch.rand_like(images)
    optimizer = torch.optim.Adam(purifier.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = guide.loss(purifier, attacked, images)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.8 * losses[0]
