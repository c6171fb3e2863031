"""PuriDefense of which each batch goes the way that its draws fit: on both, its pixels are those of the plain one."""

from collections.abc import Callable, Mapping
from typing import cast

import pytest
import torch

from models.decoder import DecoderConfig
from models.defenses.puridefense import PuriDefense
from models.encoders import EDSRConfig
from models.pool import PurifierPool
from models.purifier import PurifierConfig
from models.recorded import gathered_pool, replay
from models.recorded.puridefense import RecordedPuriDefense
from models.recorded.room import room
from tests.conftest import PURIFIERS, untrained_purifier
from tests.models.recorded.tape import Recorder

INTERPRETED = """
from models.recorded import gathered_pool, room
from tests.models.recorded.tape import Recorder
from tests.models.recorded.test_puridefense import TWO, check, defense, ways

gathered_pool.WORTHWHILE, room.OVERFLOWS = 1, 0.9
assert room.room(8, 1, 2) == 5
recorder = Recorder()
check(defense(TWO, grid=1), recorder, [[0, 1, 1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
assert ways(recorder) == ["GatheredPool", "RoutedPool"]
print("the same")
"""
TWO = {
    f"edsr{features}": PurifierConfig(
        encoder=EDSRConfig(features=features, blocks=1), decoder=DecoderConfig(hidden=(2,))
    )
    for features in (2, 3)
}
LARGEST = 16
ROWS = 8
"""Images of most batches here, whose windows have less room than there are of them."""
FIT = room(4 * ROWS, 1, 4)
MIXED = [0, 1, 2, 3] * ROWS


def defense(configs: Mapping[str, PurifierConfig], grid: int) -> PuriDefense:
    """Of one purifier in each of the architectures."""
    pool = PurifierPool({name: untrained_purifier(config) for name, config in configs.items()})
    return PuriDefense(pool.eval().requires_grad_(False), grid, halo=1)


def check(
    plain: PuriDefense, recorder: replay.Recorder, batches: list[list[int]], device: str = "cpu", rounding: float = 1e-5
) -> None:
    """Sends a batch with each of the draws through a recorded defense, and compares it with the plain one."""
    recorded = RecordedPuriDefense(plain, LARGEST, recorder)
    for batch in batches:
        draws = torch.tensor(batch, dtype=torch.int64).view(-1, plain.grid**2)
        images = torch.rand(len(draws), 3, 4, 4, device=device)
        expected = plain(images, draws)
        torch.testing.assert_close(recorded(images, draws), expected, atol=rounding, rtol=0)
        if len(images):
            assert float((expected - images).abs().max()) > 10 * rounding


def ways(recorder: Recorder) -> list[str]:
    """The pools that were recorded, in turn."""
    return [type(cast("PuriDefense", tape.function).pool).__name__ for tape in recorder.tapes]


@pytest.fixture
def plain() -> PuriDefense:
    return defense(PURIFIERS, grid=2)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def _always_worthwhile(monkeypatch: pytest.MonkeyPatch, convolutions_in_torch: None) -> None:  # noqa: ARG001
    monkeypatch.setattr(gathered_pool, "WORTHWHILE", 1)


def test_by_the_kernel_all_batches_get_the_pixels_of_the_plain_defense(interpreted: Callable[..., str]) -> None:
    """One that fits, one that fits but for the rows beyond it, and one that overflows."""
    assert interpreted(INTERPRETED) == "the same\n"


@pytest.mark.usefixtures("_always_worthwhile")
def test_batches_whose_draws_fit_are_gathered(plain: PuriDefense, recorder: Recorder) -> None:
    check(plain, recorder, [MIXED, MIXED[::-1], [2] * FIT + [0, 1, 3] * 2 + [1]])
    assert ways(recorder) == ["GatheredPool"]


@pytest.mark.usefixtures("_always_worthwhile")
@pytest.mark.parametrize("crowd", range(4))
def test_a_batch_whose_draws_overflow_is_not_gathered(plain: PuriDefense, recorder: Recorder, crowd: int) -> None:
    overflowing = [(crowd + 1) % 4] * (4 * ROWS - FIT - 1) + [crowd] * (FIT + 1)
    check(plain, recorder, [overflowing, MIXED, overflowing])
    assert ways(recorder) == ["RoutedPool", "GatheredPool"]


@pytest.mark.usefixtures("_always_worthwhile")
def test_rows_beyond_a_batch_take_no_room_from_it(plain: PuriDefense, recorder: Recorder) -> None:
    full, part = [1, 2, 3, 1] * (ROWS - 3) + [0] * 12, [0] * 20
    assert len(part) < FIT < len(part) + 12
    check(plain, recorder, [full, part])
    (tape,) = recorder.tapes
    assert tape.inputs[1].eq(0).all()
    assert tape.output[5:].isnan().any()


@pytest.mark.usefixtures("_always_worthwhile")
def test_a_recording_may_overflow_where_the_batch_that_is_repeated_in_it_does_not(
    plain: PuriDefense, recorder: Recorder
) -> None:
    check(plain, recorder, [[3] * 20])
    assert ways(recorder) == ["GatheredPool"]


@pytest.mark.usefixtures("_always_worthwhile")
@pytest.mark.parametrize("patch", [[0, 1, 2, 3], [2, 2, 2, 2]], ids=["fits", "overflows"])
def test_a_batch_that_is_too_large_to_be_recorded_gets_its_pixels(
    plain: PuriDefense, recorder: Recorder, patch: list[int]
) -> None:
    check(plain, recorder, [patch * (LARGEST + 1)])
    assert not recorder.tapes


@pytest.mark.usefixtures("convolutions_in_torch")
def test_where_it_does_not_pay_nothing_is_gathered(plain: PuriDefense, recorder: Recorder) -> None:
    check(plain, recorder, [MIXED[:4], MIXED])
    assert ways(recorder) == ["RoutedPool", "RoutedPool"]


@pytest.mark.usefixtures("_always_worthwhile")
def test_no_images_give_no_images(plain: PuriDefense, recorder: Recorder) -> None:
    check(plain, recorder, [[]])


@pytest.mark.cuda
@torch.inference_mode()
@pytest.mark.parametrize("worthwhile", [1, 2**62], ids=["gathered", "routed"])
def test_on_a_gpu_all_batches_get_the_pixels_of_the_plain_defense(
    plain: PuriDefense, monkeypatch: pytest.MonkeyPatch, worthwhile: int
) -> None:
    """Both ways by turns, in graphs of several sizes that share their memory, with rows of earlier batches in them."""
    monkeypatch.setattr(gathered_pool, "WORTHWHILE", worthwhile)
    crowd = [2] * len(MIXED)
    batches = [MIXED, crowd, MIXED[:12], MIXED[::-1], crowd[:4], MIXED[4:24], crowd[:28], MIXED * 2, MIXED * 3, MIXED]
    check(plain.cuda(), replay.GraphRecorder(torch.device("cuda")), batches, "cuda", 1e-3)
