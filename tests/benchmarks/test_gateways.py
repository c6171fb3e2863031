"""Numbers of gateways that can be compared."""

import pytest
import typer

from benchmarks.gateways import read_counts


def test_numbers_that_divide_the_largest_are_taken_in_their_order() -> None:
    assert read_counts("4,1,2,4") == [1, 2, 4]


@pytest.mark.parametrize("text", ["3,4", "0,2", "1,two", ""])
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        read_counts(text)
