"""A routed pool gives what the plain one gives: by Triton's interpreter here, by its compiler on a GPU."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from models.bundle import read_bundle
from models.pool import PurifierPool
from models.purifier import Purifier
from models.recorded.routed_convolution import Route, RoutedConvolution, routed, routing_problem
from models.recorded.routed_pool import RoutedPool

DRAWS = (3, 0, 1, 1, 2, 0)
INTERPRETED = """
import sys
from importlib.util import find_spec
from pathlib import Path
import torch
from models.bundle import read_bundle
from models.pool import PurifierPool
from models.recorded.routed_pool import RoutedPool

purifiers = read_bundle(Path(sys.argv[1])).purifiers
pool = PurifierPool({name: purifier.eval() for name, purifier in purifiers.items()})
windows, draws = torch.rand(6, 3, 7, 5), torch.tensor([3, 0, 1, 1, 2, 0])
with torch.inference_mode():
    torch.testing.assert_close(RoutedPool(pool)(windows, draws), pool(windows, draws), atol=1e-5, rtol=0)
    pool, draws = pool.without("fgsm-rcan"), torch.tensor([2, 0, 1, 1, 2, 0])
    torch.testing.assert_close(RoutedPool(pool)(windows, draws), pool(windows, draws), atol=1e-5, rtol=0)
print("the same")
"""
LAYERS = """
import torch
from torch import nn
from models.recorded.routed_convolution import Route, RoutedConvolution

torch.manual_seed(0)
route = Route()
route.owners = torch.tensor([1, 0, -1, 1], dtype=torch.int32)
windows = torch.rand(4, 20, 9, 11)
with torch.inference_mode():
    for side, outputs in ((3, 130), (1, 200), (3, 5)):
        layers = [nn.Conv2d(20, outputs, side, padding=side // 2) for _ in range(2)]
        for rectified in (False, True):
            found = RoutedConvolution(layers, route, rectified=rectified)(windows)
            for index, owner in enumerate(route.owners.tolist()):
                if owner >= 0:
                    expected = layers[owner](windows[index])
                    expected = expected.relu() if rectified else expected
                    torch.testing.assert_close(found[index], expected, atol=1e-4, rtol=0)
print("the same")
"""


@pytest.fixture
def pool(bundle_folder: Path) -> PurifierPool:
    return PurifierPool(read_bundle(bundle_folder).purifiers).eval()


def test_it_purifies_as_the_plain_pool_does(bundle_folder: Path, interpreted: Callable[..., str]) -> None:
    assert interpreted(INTERPRETED, str(bundle_folder)) == "the same\n"


def test_a_layer_of_any_width_gives_each_window_what_the_convolution_of_its_owner_gives(
    interpreted: Callable[..., str],
) -> None:
    assert interpreted(LAYERS) == "the same\n"


def test_it_has_the_names_of_the_pool(pool: PurifierPool) -> None:
    assert RoutedPool(pool).names == pool.names


@pytest.mark.parametrize(
    "convolution",
    [nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, padding=1, stride=2), nn.Conv2d(4, 4, 3, padding=1, groups=2)],
    ids=["no padding", "stride", "groups"],
)
def test_a_convolution_of_another_kind_is_refused(convolution: nn.Conv2d) -> None:
    with pytest.raises(ValueError, match="cannot be routed"):
        RoutedConvolution([convolution], Route(), rectified=False)


def test_networks_of_two_shapes_are_refused() -> None:
    narrow, wide = (nn.Sequential(nn.Conv2d(3, width, 1)) for width in (4, 8))
    with pytest.raises(ValueError, match="cannot be routed"):
        routed([narrow, wide], Route())


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
def test_what_keeps_convolutions_from_being_routed_is_told() -> None:
    """Triton has no compiler for a CPU."""
    assert routing_problem(torch.device("cpu"))


@pytest.mark.cuda
def test_nothing_keeps_them_on_a_gpu() -> None:
    assert routing_problem(torch.device("cuda")) is None


def test_a_network_with_weights_that_no_convolution_has_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be routed"):
        routed([nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)) for _ in range(2)], Route())


@pytest.mark.cuda
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_on_a_gpu_it_purifies_as_the_plain_pool_does(pool: PurifierPool, precision: torch.dtype) -> None:
    pool.cuda()
    for purifier in pool.purifiers:
        assert isinstance(purifier, Purifier)
        purifier.to(precision)
    windows, draws = torch.rand(6, 3, 18, 18, device="cuda"), torch.tensor(DRAWS)
    expected, found = pool(windows, draws), RoutedPool(pool)(windows, draws.cuda())
    difference = (found - expected).abs()
    assert float((expected - windows).abs().max()) > 0.1
    assert float(difference.max()) < (1e-3 if precision is torch.float32 else 0.03)
    assert float(difference.mean()) < (1e-4 if precision is torch.float32 else 0.003)


@pytest.mark.cuda
@torch.inference_mode()
def test_a_purifier_that_gives_no_numbers_harms_no_window_of_another(pool: PurifierPool) -> None:
    pool.cuda()
    broken = pool.purifiers[1]
    assert isinstance(broken, Purifier)
    correction = broken.decoder.layers[-1]
    assert isinstance(correction, nn.Conv2d)
    correction.weight.fill_(torch.nan)
    windows, draws = torch.rand(6, 3, 18, 18, device="cuda"), torch.tensor(DRAWS)
    finite = RoutedPool(pool)(windows, draws.cuda()).isfinite().flatten(1).all(1)
    assert finite.tolist() == [draw != 1 for draw in DRAWS]
