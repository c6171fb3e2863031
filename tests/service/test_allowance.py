"""What is left of a quota, and how long until there is more."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import parse

from service.allowance import Allowance, Usage
from service.errors import QuotaExceededError

AMOUNT = 10
MINUTE = parse(f"{AMOUNT}/minute")


def usage(previous: int = 0, previous_seconds: float = 0, current: int = 0, current_seconds: float = 0) -> Usage:
    return Usage(MINUTE, previous, previous_seconds, current, current_seconds)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    left = draw(st.floats(0.001, 60))
    return usage(draw(st.integers(0, AMOUNT)), left, draw(st.integers(0, AMOUNT)), left)


def refusal(*usages: Usage, images: int = 1) -> QuotaExceededError:
    with pytest.raises(QuotaExceededError) as refused:
        Allowance(images, granted=False, usages=usages).require()
    return refused.value


def test_of_an_unused_quota_everything_is_left() -> None:
    assert (usage().remaining, usage().seconds_until(AMOUNT)) == (AMOUNT, 0)


def test_images_of_the_window_before_count_by_the_share_that_is_left_of_it() -> None:
    assert usage(previous=10, previous_seconds=30, current=2, current_seconds=30).remaining == 3


def test_more_images_than_the_whole_quota_never_fit() -> None:
    assert usage().seconds_until(AMOUNT + 1) == inf


@given(usage=usages(), images=st.integers(1, AMOUNT))
def test_after_the_wait_that_is_told_the_images_fit(usage: Usage, images: int) -> None:
    assert usage.after(usage.seconds_until(images) + 1e-6).remaining >= images


@given(usage=usages(), images=st.integers(1, AMOUNT))
def test_before_the_wait_that_is_told_is_over_they_do_not(usage: Usage, images: int) -> None:
    wait = usage.seconds_until(images)
    if wait > 1e-3:
        assert usage.after(wait - 1e-3).remaining < images


def test_images_that_were_granted_pass() -> None:
    Allowance(1, granted=True, usages=(usage(current=10, current_seconds=60),)).require()


def test_a_refusal_says_which_windows_are_full_and_waits_for_the_last_of_them() -> None:
    day = Usage(parse("50/day"), 0, 0, 50, 7200)
    refused = refusal(usage(current=10, current_seconds=60), day)
    assert str(refused) == "the quota is used up: 10 images a minute, 50 images a day"
    assert refused.retry_after == pytest.approx(7200)


def test_a_refusal_that_no_wait_mends_says_what_to_send_instead() -> None:
    assert "send 10" in str(refusal(usage(), images=11))


def test_the_headers_tell_each_window_as_the_draft_has_it() -> None:
    windows = (usage(current=4, current_seconds=12.3), Usage(parse("50/2 hours"), 0, 0, 4, 7000))
    assert Allowance(1, granted=True, usages=windows).headers() == {
        "RateLimit-Policy": '"minute";q=10;w=60, "2-hour";q=50;w=7200',
        "RateLimit": '"minute";r=6;t=13, "2-hour";r=46;t=7000',
    }


def test_of_a_window_that_is_used_up_the_headers_tell_when_there_is_more() -> None:
    full = usage(current=10, current_seconds=30)
    assert Allowance(1, granted=False, usages=(full,)).headers()["RateLimit"] == '"minute";r=0;t=30'
