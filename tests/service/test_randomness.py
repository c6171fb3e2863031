"""The randomness of a deployment."""

import pytest

from service.randomness import system_randomness


@pytest.mark.parametrize("count", [0, 1, 8, 10_000])
def test_it_gives_as_many_bytes_as_are_asked_for(count: int) -> None:
    assert len(system_randomness(count)) == count


def test_it_never_gives_the_same_bytes_again() -> None:
    assert len({system_randomness(16) for _ in range(100)}) == 100
