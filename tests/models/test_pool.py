"""The pool sends each window through the purifier that was drawn for it, once."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from models.decoder import DecoderConfig
from models.encoders import EDSRConfig
from models.pool import PurifierPool, divide
from models.purifier import Purifier, PurifierConfig

CONFIG = PurifierConfig(encoder=EDSRConfig(features=4, blocks=1), decoder=DecoderConfig(hidden=(8,)))
LEVELS = (0.125, 0.25, 0.375)


@pytest.fixture(scope="session")
def painters(painter: Callable[[float], Purifier]) -> PurifierPool:
    return PurifierPool({f"paints {level}": painter(level) for level in LEVELS})


@settings(deadline=None, max_examples=50)
@given(draws=st.lists(st.integers(0, len(LEVELS) - 1), min_size=1, max_size=12))
def test_each_window_goes_through_the_purifier_that_it_drew(painters: PurifierPool, draws: list[int]) -> None:
    windows = torch.arange(len(draws)).view(-1, 1, 1, 1).expand(-1, 3, 4, 5) / 64

    purified = painters(windows, torch.tensor(draws))

    added = torch.tensor([LEVELS[draw] for draw in draws]).view(-1, 1, 1, 1)
    assert torch.equal(purified, windows + added)


@settings(deadline=None, max_examples=50)
@given(windows=st.integers(1, 12), data=st.data())
def test_the_number_of_calls_does_not_tell_what_was_drawn(
    painters: PurifierPool, windows: int, data: st.DataObject
) -> None:
    draws = data.draw(st.lists(st.integers(0, len(LEVELS) - 1), min_size=windows, max_size=windows))
    sizes: list[int] = []
    hooks = [
        purifier.register_forward_pre_hook(lambda _module, arguments: sizes.append(len(arguments[0])))
        for purifier in painters.purifiers
    ]

    painters(torch.zeros(windows, 3, 4, 5), torch.tensor(draws))

    for hook in hooks:
        hook.remove()
    assert len(sizes) == min(windows, len(LEVELS))
    assert sum(sizes) == windows


@pytest.mark.parametrize(
    ("counts", "calls", "divided"),
    [
        ([4, 0, 0], 3, [(0, 1), (0, 1), (0, 2)]),
        ([0, 9, 3], 3, [(1, 4), (1, 5), (2, 3)]),
        ([1, 2, 1], 3, [(0, 1), (1, 2), (2, 1)]),
    ],
    ids=["one purifier", "the largest is halved", "enough already"],
)
def test_the_largest_groups_are_halved_until_there_are_enough(
    counts: list[int], calls: int, divided: list[tuple[int, int]]
) -> None:
    assert divide(counts, calls) == divided


def test_new_purifiers_give_back_the_identical_windows() -> None:
    pool = PurifierPool({"one": Purifier(CONFIG), "two": Purifier(CONFIG)}).requires_grad_(False)
    windows = torch.rand(5, 3, 6, 6)

    assert torch.equal(pool(windows, torch.tensor([1, 0, 0, 1, 1])), windows)


def test_a_window_is_purified_alike_alone_and_among_others(
    active_purifier: Callable[[PurifierConfig], Purifier],
) -> None:
    purifiers = {name: active_purifier(CONFIG).requires_grad_(False) for name in ("one", "two", "three")}
    windows, draws = torch.rand(6, 3, 6, 6), torch.tensor([2, 0, 1, 0, 2, 2])

    together = PurifierPool(purifiers)(windows, draws)

    members = list(purifiers.values())
    alone = torch.cat([members[draw](windows[index : index + 1]) for index, draw in enumerate(draws.tolist())])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_a_pool_of_twelve_does_no_more_work_than_a_pool_of_one() -> None:
    windows = torch.rand(24, 3, 6, 6)
    operations = []
    for members in (1, 12):
        pool = PurifierPool({str(index): Purifier(CONFIG) for index in range(members)}).requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            pool(windows, torch.arange(24) % members)
        operations.append(counter.get_total_flops())

    assert operations[1] == operations[0] > 0


def test_the_output_stays_float32_where_the_convolutions_run_in_bfloat16(painters: PurifierPool) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        purified = painters(torch.zeros(3, 3, 4, 4), torch.tensor([2, 1, 0]))

    assert purified.dtype == torch.float32
    assert purified[:, 0, 0, 0].tolist() == [0.375, 0.25, 0.125]


def test_names_tell_the_order_that_draws_count_in(painters: PurifierPool) -> None:
    assert painters.names == ("paints 0.125", "paints 0.25", "paints 0.375")
    assert len(painters) == 3


def test_a_draw_of_a_purifier_that_is_not_there_is_an_error(painters: PurifierPool) -> None:
    with pytest.raises(ValueError, match="purifier 3 was drawn from a pool of 3"):
        painters(torch.rand(2, 3, 4, 4), torch.tensor([0, len(LEVELS)]))


def test_a_pool_without_purifiers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one purifier"):
        PurifierPool({})


def test_a_pool_without_one_purifier_has_the_others_in_their_order() -> None:
    pool = PurifierPool({name: Purifier(CONFIG) for name in "abc"})
    smaller = pool.without("b")
    assert smaller.names == ("a", "c")
    assert list(smaller.purifiers) == [pool.purifiers[0], pool.purifiers[2]]
    assert pool.names == ("a", "b", "c")


@pytest.mark.parametrize("names", ["a", "bc"], ids=["the last one", "one that is not there"])
def test_a_purifier_that_cannot_go_is_an_error(names: str) -> None:
    with pytest.raises(ValueError, match="purifier"):
        PurifierPool({name: Purifier(CONFIG) for name in names}).without("a")
