"""Randomness depends on a seed, a purpose and a number, and on nothing that came before."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.sampling import Epochs, generator, seeded, step_seed


def draw(seed: int, purpose: str, number: int) -> list[int]:
    return torch.randint(2**31, (4,), generator=generator(seed, purpose, number)).tolist()


def test_the_same_arguments_give_the_same_numbers() -> None:
    assert draw(3, "order", 7) == draw(3, "order", 7)


@pytest.mark.parametrize(
    "other", [(4, "order", 7), (3, "attack", 7), (3, "order", 8), (37, "order", 0), (-3, "order", 7)]
)
def test_another_seed_purpose_or_number_gives_others(other: tuple[int, str, int]) -> None:
    assert draw(3, "order", 7) != draw(*other)


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    before = torch.random.get_rng_state()
    first = draw(0, "order", 0)

    torch.manual_seed(99)

    assert draw(0, "order", 0) == first
    torch.random.set_rng_state(before)
    draw(0, "order", 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_code_that_takes_no_generator_is_seeded_and_what_comes_after_is_not() -> None:
    before = torch.random.get_rng_state()
    drawn = []
    for number in (7, 7, 8):
        with seeded(torch.device("cpu"), step_seed(3, "forward/0", number)):
            drawn.append(torch.rand(4).tolist())

    assert drawn[0] == drawn[1] != drawn[2]
    assert torch.equal(torch.random.get_rng_state(), before)


@settings(deadline=None, max_examples=40)
@given(images=st.integers(1, 40), batch=st.integers(1, 40), seed=st.integers(0, 2**40), epoch=st.integers(0, 5))
def test_an_epoch_shows_every_image_at_most_once(images: int, batch: int, seed: int, epoch: int) -> None:
    batch = min(batch, images)
    epochs = Epochs(images, batch, seed)

    steps = range(epoch * epochs.steps, (epoch + 1) * epochs.steps)
    seen = torch.cat([epochs.indices(step) for step in steps]).tolist()

    assert epochs.steps == images // batch
    assert len(seen) == len(set(seen)) == epochs.steps * batch
    assert set(seen) <= set(range(images))


def test_each_epoch_has_an_order_of_its_own() -> None:
    epochs = Epochs(32, 32, 0)

    assert epochs.indices(0).tolist() != epochs.indices(1).tolist()


def test_a_batch_is_the_same_whichever_was_asked_for_before() -> None:
    forward, backward = Epochs(20, 4, 1), Epochs(20, 4, 1)

    asked = {step: forward.indices(step).tolist() for step in range(15)}

    assert {step: backward.indices(step).tolist() for step in reversed(range(15))} == asked
