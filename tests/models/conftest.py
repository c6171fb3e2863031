"""Seeded weights for every test, purifiers whose work can be told from their output, and a measure of uniformity."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from models.decoder import DecoderConfig
from models.encoders import EDSRConfig, EncoderConfig, RCANConfig
from models.purifier import Purifier, PurifierConfig

ENCODERS: dict[str, EncoderConfig] = {
    "edsr": EDSRConfig(features=4, blocks=1),
    "rcan": RCANConfig(features=4, groups=1, blocks=1),
    "edsr-unshuffled": EDSRConfig(features=4, blocks=1, unshuffle=2),
    "rcan-unshuffled": RCANConfig(features=4, groups=1, blocks=1, unshuffle=3),
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """These networks are too small to share between threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _seeded_weights() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(params=ENCODERS)
def purifier_config(request: pytest.FixtureRequest) -> PurifierConfig:
    """A tiny purifier of each kind of encoder."""
    return PurifierConfig(encoder=ENCODERS[request.param], decoder=DecoderConfig(hidden=(8,)))


@pytest.fixture
def active_purifier() -> Callable[[PurifierConfig], Purifier]:
    """Makes purifiers that change images as a trained one would: a new one is the identity."""

    def make(config: PurifierConfig) -> Purifier:
        purifier = Purifier(config).eval()
        nn.init.normal_(_correction(purifier).weight, std=0.2)
        return purifier

    return make


@pytest.fixture(scope="session")
def painter() -> Callable[[float], Purifier]:
    """Makes purifiers that add a fixed level to every pixel: on a black image they paint it."""

    def make(level: float) -> Purifier:
        config = PurifierConfig(encoder=EDSRConfig(features=2, blocks=1), decoder=DecoderConfig(hidden=(2,)))
        purifier = Purifier(config).eval().requires_grad_(False)
        bias = _correction(purifier).bias
        assert bias is not None
        nn.init.constant_(bias, level)
        return purifier

    return make


@pytest.fixture(scope="session")
def chi_square() -> Callable[[Tensor], float]:
    """The chi-square statistic of counts that should all be equal."""

    def statistic(counts: Tensor) -> float:
        expected = counts.sum() / counts.numel()
        return float(((counts - expected) ** 2 / expected).sum())

    return statistic


def _correction(purifier: Purifier) -> nn.Conv2d:
    layer = purifier.decoder.layers[-1]
    assert isinstance(layer, nn.Conv2d)
    return layer
