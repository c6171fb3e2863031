"""A pool that gathers gives what the plain one gives, and nothing where it has no room."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from models.defenses.puridefense import PuriDefense
from models.pool import PurifierPool
from models.purifier import Purifier
from models.recorded.gathered_pool import GatheredPool, first_places
from models.recorded.replay import GraphRecorder, Replayed
from models.recorded.room import room
from models.recorded.routed_convolution import RoutedConvolution
from models.recorded.routed_pool import RoutedPool
from tests.conftest import PURIFIERS, untrained_purifier

INTERPRETED = """
import sys
from pathlib import Path
import torch
from models.bundle import read_bundle
from models.recorded.gathered_pool import GatheredPool
from models.pool import PurifierPool
from models.recorded.routed_pool import RoutedPool

def compare(pool, draws):
    windows, draws = torch.rand(len(draws), 3, 4, 3), torch.tensor(draws)
    gathered = GatheredPool(RoutedPool(pool))
    assert gathered.holds(draws, len(windows))
    torch.testing.assert_close(gathered(windows, draws), pool(windows, draws), atol=1e-5, rtol=0)

purifiers = read_bundle(Path(sys.argv[1])).purifiers
pool = PurifierPool({name: purifier.eval() for name, purifier in purifiers.items()})
with torch.inference_mode():
    compare(pool, [0] * 7 + [3, 2, 1, 0, 0, 0, 3, 0, 0, 0, 2])
    compare(pool.without("fgsm-rcan"), [2, 0, 1, 1, 2])
    compare(pool.without("fgsm-rcan").without("pgd-rcan").without("pgd-edsr"), [0, 0, 0])
print("the same")
"""
MEMBERS = {"four architectures": (1, 1, 1, 1), "of unequal sizes": (3, 1, 2, 0), "one architecture": (0, 3, 0, 0)}


def pool_of(members: tuple[int, ...]) -> PurifierPool:
    """So many purifiers of each architecture of the small bundle, dealt out in turns."""
    made: dict[str, Purifier] = {}
    for number in range(max(members)):
        for (name, config), count in zip(PURIFIERS.items(), members, strict=True):
            if number < count:
                made[f"{name}-{number}"] = untrained_purifier(config)
    return PurifierPool(made).eval().requires_grad_(False)


@pytest.fixture(params=MEMBERS)
def plain(request: pytest.FixtureRequest) -> PurifierPool:
    return pool_of(MEMBERS[request.param])


@pytest.fixture
def pool() -> PurifierPool:
    return pool_of((1, 1, 1, 1))


def gathering(pool: PurifierPool) -> GatheredPool:
    return GatheredPool(RoutedPool(pool))


def test_by_the_kernel_it_purifies_as_the_plain_pool_does(bundle_folder: Path, interpreted: Callable[..., str]) -> None:
    assert interpreted(INTERPRETED, str(bundle_folder)) == "the same\n"


@pytest.mark.usefixtures("convolutions_in_torch")
@pytest.mark.parametrize("windows", [1, 6, 24, 100])
def test_it_purifies_as_the_plain_pool_does(plain: PurifierPool, windows: int) -> None:
    images, draws = torch.rand(windows, 3, 7, 5), torch.randint(len(plain), (windows,))
    gathered = gathering(plain)
    assert gathered.holds(draws, windows)
    torch.testing.assert_close(gathered(images, draws), plain(images, draws), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("convolutions_in_torch")
def test_it_leaves_the_routed_pool_as_it_is(plain: PurifierPool) -> None:
    images, draws = torch.rand(40, 3, 7, 5), torch.randint(len(plain), (40,))
    routed = RoutedPool(plain)
    GatheredPool(routed)(images, draws)
    torch.testing.assert_close(routed(images, draws), plain(images, draws), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("convolutions_in_torch")
def test_each_window_is_computed_once_and_passed_over_in_no_more_rows_than_there_is_room() -> None:
    gathered, rows, owned = gathering(pool_of((2, 1, 1, 0))), [], []
    for stack in gathered.routed.architectures:
        stack.register_forward_pre_hook(lambda _stack, given: rows.append(len(given[0])))
        stack.register_forward_pre_hook(lambda _stack, given: owned.append(int((given[1] >= 0).sum())))
    gathered(torch.rand(40, 3, 7, 5), torch.arange(40) % 4)
    assert rows == [room(40, 2, 4), room(40, 1, 4), room(40, 1, 4)]
    assert owned == [20, 10, 10]


@pytest.mark.usefixtures("convolutions_in_torch")
def test_a_window_without_room_gets_no_numbers_and_all_others_get_theirs(pool: PurifierPool) -> None:
    windows, draws = torch.rand(40, 3, 7, 5), torch.tensor([1, 2] + [0] * 37 + [3])
    kept = room(40, 1, 4)
    lost = torch.zeros(40, dtype=torch.bool)
    lost[2 + kept : -1] = True
    assert 0 < lost.sum() < 37

    purified = gathering(pool)(windows, draws)

    torch.testing.assert_close(purified[~lost], pool(windows, draws)[~lost], atol=1e-5, rtol=0)
    assert purified[lost].isnan().all()


@pytest.mark.usefixtures("convolutions_in_torch")
@pytest.mark.parametrize("later", range(4))
def test_what_later_windows_draw_changes_no_earlier_one(pool: PurifierPool, later: int) -> None:
    windows, draws = torch.rand(64, 3, 7, 5), torch.full((64,), later)
    draws[:20] = torch.randint(4, (20,))
    gathered = gathering(pool)
    assert gathered.holds(draws[:20], 64)
    assert not gathered.holds(draws, 64)
    torch.testing.assert_close(gathered(windows, draws)[:20], pool(windows, draws)[:20], atol=1e-5, rtol=0)


@pytest.mark.usefixtures("convolutions_in_torch")
def test_a_purifier_that_gives_no_numbers_harms_no_window_of_another() -> None:
    plain = pool_of((2, 1, 1, 0))
    for broken in plain.purifiers[0].parameters():
        broken.fill_(torch.nan)
    draws = torch.arange(40) % 4
    purified = gathering(plain)(torch.rand(40, 3, 7, 5), draws)
    assert torch.equal(purified.isfinite().flatten(1).all(1), draws != 0)


def test_draws_fit_as_far_as_there_is_room(pool: PurifierPool) -> None:
    gathered, kept = gathering(pool), room(64, 1, 4)
    for index in range(4):
        draws = torch.tensor([(index + 1) % 4] * 10 + [index] * kept)
        assert gathered.holds(draws, 64)
        assert not gathered.holds(torch.cat([draws, torch.tensor([index])]), 64)


def test_a_pool_of_one_architecture_never_gathers() -> None:
    assert not gathering(pool_of((0, 3, 0, 0))).pays(2**14, 2**14)


@pytest.mark.parametrize(
    ("images", "side", "pays"), [(64, 18, False), (128, 18, True), (4, 120, False), (8, 120, True)]
)
def test_it_pays_with_many_windows_or_large_ones(images: int, side: int, *, pays: bool) -> None:
    assert gathering(pool_of((3, 3, 3, 3))).pays(4 * images, side**2) == pays


class Launched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the name of every operation and the shapes that it gave."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[str, Any]] = []

    def __torch_dispatch__(
        self, operation: Any, _types: Any, arguments: tuple[Any, ...] = (), options: Mapping[str, Any] | None = None
    ) -> Any:
        result = operation(*arguments, **(options or {}))
        self.operations.append((str(operation), getattr(result, "shape", None)))
        return result


@pytest.fixture
def _convolutions_of_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    def zeros(layer: RoutedConvolution, windows: Tensor) -> Tensor:
        outputs = cast("Tensor", layer.bias).shape[-1]
        return windows.new_zeros(len(windows), outputs, *windows.shape[2:])

    monkeypatch.setattr(RoutedConvolution, "forward", zeros)


@pytest.mark.usefixtures("_convolutions_of_zeros")
def test_nothing_is_asked_of_the_device(pool: PurifierPool) -> None:
    """Tensors of the meta device have shapes and nothing that could be looked at."""
    gathered = gathering(pool).to("meta")
    purified = gathered(torch.rand(32, 3, 7, 5, device="meta"), torch.zeros(32, dtype=torch.int64, device="meta"))
    assert purified.shape == (32, 3, 7, 5)


@pytest.mark.usefixtures("_convolutions_of_zeros")
def test_the_same_is_launched_whatever_was_drawn(pool: PurifierPool) -> None:
    gathered, windows, seen = gathering(pool), torch.rand(32, 3, 7, 5), []
    for draws in (torch.tensor([0] * 32), torch.tensor([3] * 32), torch.arange(32) % 4):
        with Launched() as launched:
            gathered(windows, draws)
        seen.append(launched.operations)
    assert seen[0] == seen[1] == seen[2]
    assert "aten.searchsorted.Tensor" in {name for name, _ in seen[0]}


@settings(deadline=None)
@given(rows=st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=4), most=st.integers(0, 9))
def test_the_first_places_are_found_in_their_order(rows: list[list[bool]], most: int) -> None:
    expected = [([place for place in range(9) if row[place]] + [9] * 9)[:most] for row in rows]
    assert first_places(torch.tensor(rows), most).tolist() == expected


@pytest.mark.cuda
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_on_a_gpu_it_purifies_as_the_routed_pool_does(plain: PurifierPool, precision: torch.dtype) -> None:
    plain.cuda()
    for purifier in plain.purifiers:
        purifier.to(precision)
    routed = RoutedPool(plain)
    windows, draws = torch.rand(100, 3, 18, 18, device="cuda"), torch.randint(len(plain), (100,)).cuda()
    difference = (GatheredPool(routed)(windows, draws) - routed(windows, draws)).abs()
    assert float(difference.max()) < (1e-3 if precision is torch.float32 else 0.03)


@pytest.mark.cuda
@torch.inference_mode()
def test_a_cuda_graph_of_it_gives_each_draw_its_own(pool: PurifierPool) -> None:
    routed = RoutedPool(pool.cuda())
    every, gathered = (PuriDefense(one, grid=2, halo=2) for one in (routed, GatheredPool(routed)))
    replayed = Replayed(gathered, 16, GraphRecorder(torch.device("cuda")))
    for _ in range(5):
        images, draws = torch.rand(16, 3, 32, 32, device="cuda"), torch.randint(4, (16, 4), device="cuda")
        torch.testing.assert_close(replayed(images, draws), every(images, draws), atol=1e-3, rtol=0)
