"""What is made of the requests of a run."""

from collections import Counter

from loadtest.tally import Tally

EMPTY = Tally(Counter(), failures=0, refused=0)


def test_a_percentile_is_the_time_within_which_so_many_were_answered() -> None:
    tally = Tally(Counter({10: 50, 20: 49, 300: 1}), failures=0, refused=0)
    assert [tally.percentile(percent) for percent in (50, 51, 99, 99.5, 100)] == [10, 20, 20, 300, 300]


def test_a_part_of_a_run_is_what_came_after_the_part_before() -> None:
    before = Tally(Counter({10: 5, 20: 1}), failures=1, refused=2)
    after = Tally(Counter({10: 5, 20: 3, 30: 4}), failures=3, refused=7)
    assert after.since(before) == Tally(Counter({20: 2, 30: 4}), failures=2, refused=5)


def test_refused_requests_are_neither_answered_nor_errors() -> None:
    tally = Tally(Counter({10: 8}), failures=2, refused=90)
    assert (tally.requests, tally.answered, tally.error_rate) == (8, 6, 0.25)


def test_nothing_at_all_has_no_errors_and_took_no_time() -> None:
    assert (EMPTY.requests, EMPTY.error_rate, EMPTY.percentile(99)) == (0, 0, 0)
