"""The randomness of a deployment."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.preprocessing import Pixels
from service.randomness import Sticky, choose_randomness, fresh
from service.secret_file import SecretError
from service.settings import Settings

SECRET = b"a secret that all replicas share"
IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def changed(image: Pixels, index: int) -> Pixels:
    """The same image but for the lowest bit of one value."""
    other = image.copy()
    other.flat[index] ^= 1
    return other


@pytest.mark.parametrize("count", [0, 1, 8, 10_000])
def test_fresh_gives_as_many_bytes_as_are_asked_for(count: int) -> None:
    assert len(fresh([IMAGE] * 3, count, 0)) == 3 * count


def test_fresh_never_gives_the_same_bytes_again() -> None:
    assert len({fresh([IMAGE], 16, 0) for _ in range(100)}) == 100


@pytest.mark.parametrize("count", [0, 1, 8, 10_000])
def test_sticky_gives_as_many_bytes_as_are_asked_for(count: int) -> None:
    assert len(Sticky(SECRET)([IMAGE] * 3, count, 0)) == 3 * count


def test_replicas_with_the_same_secret_give_the_same_image_the_same_bytes() -> None:
    one, other = Sticky(SECRET), Sticky(SECRET)
    assert one([IMAGE], 64, 0) == other([IMAGE.copy()], 64, 0)


def test_an_image_gets_its_own_bytes_whichever_others_are_in_its_batch() -> None:
    sticky = Sticky(SECRET)
    others = [changed(IMAGE, 0), changed(IMAGE, 1)]
    assert sticky([others[0], IMAGE, others[1]], 16, 0)[16:32] == sticky([IMAGE], 16, 0)


@given(index=st.integers(0, IMAGE.size - 1))
def test_one_changed_bit_draws_anew(index: int) -> None:
    sticky = Sticky(SECRET)
    assert sticky([IMAGE], 16, 0) != sticky([changed(IMAGE, index)], 16, 0)


def test_the_same_pixels_in_another_shape_draw_anew() -> None:
    sticky = Sticky(SECRET)
    assert sticky([IMAGE], 16, 0) != sticky([IMAGE.reshape(4, 16, 3)], 16, 0)


def test_another_secret_draws_otherwise() -> None:
    assert Sticky(SECRET)([IMAGE], 16, 0) != Sticky(SECRET[::-1])([IMAGE], 16, 0)


def test_the_draws_of_one_batch_do_not_repeat_one_another() -> None:
    sticky = Sticky(SECRET)
    assert len({sticky([IMAGE], 16, turn) for turn in range(100)}) == 100


def test_sticky_bytes_look_uniform() -> None:
    drawn = Sticky(SECRET)([changed(IMAGE, index) for index in range(IMAGE.size)], 512, 0)
    counts = np.bincount(np.frombuffer(drawn, np.uint8), minlength=256)
    expected = len(drawn) / 256
    assert ((counts - expected) ** 2 / expected).sum() < 400, "255 degrees of freedom: one in 10 million is above"


def test_by_default_every_query_draws_anew() -> None:
    assert choose_randomness(Settings()) is fresh


def test_the_secret_comes_from_the_environment_or_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET + b"\n")
    from_file = choose_randomness(Settings(randomness="sticky", sticky_secret_file=path))
    monkeypatch.setenv("PURIGATE_STICKY_SECRET", SECRET.decode())
    from_environment = choose_randomness(Settings(randomness="sticky"))
    assert from_file([IMAGE], 16, 0) == from_environment([IMAGE], 16, 0) == Sticky(SECRET)([IMAGE], 16, 0)


@pytest.mark.parametrize("content", [b"short", b"", None])
def test_a_secret_that_is_missing_or_short_is_an_error_that_does_not_tell_it(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SecretError, match="secret") as error:
        choose_randomness(Settings(randomness="sticky", sticky_secret_file=path))
    assert not content or content.decode() not in str(error.value)
