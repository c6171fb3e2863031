"""The batcher: every waiter gets its own answer, whatever happens."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress

import pytest

from service.batcher import Batcher
from service.errors import DeadlinePassedError, NotReadyError, QueueFullError

PATIENCE_SECONDS = 10
NEVER = float("inf")


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Doubler:
    """Doubles numbers; can be held while it has a batch, and told to fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.busy = threading.Event()
        self.free = threading.Event()
        self.fault: BaseException | None = None

    def __call__(self, numbers: list[int]) -> Sequence[int]:
        self.batches.append(numbers)
        self.busy.set()
        assert self.free.wait(PATIENCE_SECONDS)
        if self.fault:
            raise self.fault
        return [2 * number for number in numbers]


@pytest.fixture
def doubler() -> Iterator[Doubler]:
    doubler = Doubler()
    yield doubler
    doubler.free.set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@contextmanager
def running(batcher: Batcher[int, int]) -> Iterator[Batcher[int, int]]:
    batcher.start()
    try:
        yield batcher
    finally:
        batcher.close(PATIENCE_SECONDS)


@pytest.fixture
def batcher(doubler: Doubler, clock: Clock) -> Iterator[Batcher[int, int]]:
    """Up to 4 items a batch, up to 10 waiting; its first batch, the number 0, is held."""
    with running(Batcher(doubler, 4, 10, clock=clock)) as batcher:
        batcher.submit([0], NEVER)
        assert doubler.busy.wait(PATIENCE_SECONDS)
        yield batcher
        doubler.free.set()


def results(futures: Sequence["Future[int]"]) -> list[int]:
    return [future.result(PATIENCE_SECONDS) for future in futures]


def test_one_item_gets_its_result(doubler: Doubler) -> None:
    doubler.free.set()
    with running(Batcher(doubler, 4, 10)) as batcher:
        assert results(batcher.submit([21], NEVER)) == [42]


def test_what_waits_goes_together_as_soon_as_the_worker_is_free(batcher: Batcher[int, int], doubler: Doubler) -> None:
    futures = [future for number in (1, 2, 3) for future in batcher.submit([number], NEVER)]
    doubler.free.set()
    wait(futures, PATIENCE_SECONDS)
    assert doubler.batches == [[0], [1, 2, 3]]


def test_no_batch_is_larger_than_the_largest_and_order_is_kept(batcher: Batcher[int, int], doubler: Doubler) -> None:
    futures = batcher.submit(list(range(1, 11)), NEVER)
    doubler.free.set()
    wait(futures, PATIENCE_SECONDS)
    assert doubler.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


def test_workers_run_at_once_and_share_what_waits_equally() -> None:
    both, batches = threading.Barrier(2), list[list[int]]()

    def double(numbers: list[int]) -> list[int]:
        batches.append(numbers)
        both.wait(PATIENCE_SECONDS)
        return [2 * number for number in numbers]

    with running(Batcher(double, 8, 10, workers=2)) as batcher:
        assert results(batcher.submit(list(range(7)), NEVER)) == list(range(0, 14, 2))
    assert sorted(batches) == [[0, 1, 2, 3], [4, 5, 6]]


def test_a_worker_alone_takes_all_that_waits_while_the_others_are_busy(doubler: Doubler) -> None:
    held = threading.Event()

    def double(numbers: list[int]) -> Sequence[int]:
        if numbers == [0]:
            held.set()
            return doubler(numbers)
        batches.append(numbers)
        return [2 * number for number in numbers]

    batches: list[list[int]] = []
    with running(Batcher(double, 8, 10, workers=2)) as batcher:
        batcher.submit([0], NEVER)
        assert held.wait(PATIENCE_SECONDS)
        assert results(batcher.submit([1, 2, 3], NEVER)) == [2, 4, 6]
        doubler.free.set()
    assert batches == [[1, 2, 3]]


def test_more_workers_promise_a_shorter_wait(doubler: Doubler, clock: Clock) -> None:
    def double(numbers: list[int]) -> Sequence[int]:
        if numbers == [0]:
            clock.now += 4
            return numbers
        return doubler(numbers)

    with running(Batcher(double, 1, 10, workers=2, clock=clock)) as batcher:
        results(batcher.submit([0], NEVER))
        batcher.submit([1, 2], NEVER)
        batcher.submit([3, 4, 5], NEVER)
        with pytest.raises(QueueFullError) as refused:
            batcher.submit(list(range(10)), NEVER)
        assert refused.value.retry_after == batcher.depth * 4 / 2
        doubler.free.set()


def test_each_item_gets_its_own_result(batcher: Batcher[int, int], doubler: Doubler) -> None:
    futures = batcher.submit([5, 3, 8, 1, 9], NEVER)
    doubler.free.set()
    assert results(futures) == [10, 6, 16, 2, 18]


def test_a_full_queue_refuses(batcher: Batcher[int, int]) -> None:
    batcher.submit(list(range(10)), NEVER)
    with pytest.raises(QueueFullError):
        batcher.submit([11], NEVER)


def test_items_that_do_not_all_fit_are_refused_together(batcher: Batcher[int, int]) -> None:
    batcher.submit(list(range(9)), NEVER)
    with pytest.raises(QueueFullError):
        batcher.submit([10, 11], NEVER)
    assert batcher.depth == 9


def test_a_full_queue_says_how_long_the_items_that_wait_will_take(doubler: Doubler, clock: Clock) -> None:
    def two_seconds_each(numbers: list[int]) -> Sequence[int]:
        clock.now += 2 * len(numbers)
        return doubler(numbers)

    doubler.free.set()
    with running(Batcher(two_seconds_each, 4, 5, clock=clock)) as batcher:
        results(batcher.submit([1, 2, 3], NEVER))
        doubler.busy.clear()
        doubler.free.clear()
        batcher.submit([4], NEVER)
        assert doubler.busy.wait(PATIENCE_SECONDS)
        batcher.submit([5, 6, 7, 8, 9], NEVER)
        with pytest.raises(QueueFullError) as refusal:
            batcher.submit([10], NEVER)
        doubler.free.set()
    assert refusal.value.retry_after == 10


def test_a_cancelled_item_never_reaches_the_worker(batcher: Batcher[int, int], doubler: Doubler) -> None:
    first, second = batcher.submit([1, 2], NEVER)
    first.cancel()
    doubler.free.set()
    assert results([second]) == [4]
    assert doubler.batches == [[0], [2]]


def test_cancelled_items_do_not_make_a_batch_smaller(batcher: Batcher[int, int], doubler: Doubler) -> None:
    futures = batcher.submit(list(range(1, 9)), NEVER)
    for future in futures[:3]:
        future.cancel()
    doubler.free.set()
    wait(futures[3:], PATIENCE_SECONDS)
    assert doubler.batches == [[0], [4, 5, 6, 7], [8]]


def test_cancelled_items_leave_their_place_to_others(batcher: Batcher[int, int]) -> None:
    for future in batcher.submit(list(range(10)), NEVER):
        future.cancel()
    batcher.submit([11], NEVER)


def test_an_item_past_its_deadline_is_told_so(batcher: Batcher[int, int], doubler: Doubler, clock: Clock) -> None:
    (late,) = batcher.submit([1], deadline=5.0)
    clock.now = 5.0
    doubler.free.set()
    with pytest.raises(DeadlinePassedError):
        late.result(PATIENCE_SECONDS)


def test_an_item_past_its_deadline_never_reaches_the_worker(
    batcher: Batcher[int, int], doubler: Doubler, clock: Clock
) -> None:
    _, in_time = batcher.submit([1], deadline=5.0) + batcher.submit([2], deadline=5.1)
    clock.now = 5.0
    doubler.free.set()
    assert results([in_time]) == [4]
    assert doubler.batches == [[0], [2]]


def test_a_fault_reaches_everyone_in_its_batch(batcher: Batcher[int, int], doubler: Doubler) -> None:
    futures = batcher.submit([1, 2, 3], NEVER)
    doubler.fault = ZeroDivisionError("the device broke")
    doubler.free.set()
    wait(futures, PATIENCE_SECONDS)
    assert {type(future.exception(0)) for future in futures} == {ZeroDivisionError}


@pytest.mark.parametrize("fault", [ZeroDivisionError(), SystemExit()])
def test_after_a_fault_others_are_answered(batcher: Batcher[int, int], doubler: Doubler, fault: BaseException) -> None:
    doubler.fault = fault
    doubler.free.set()
    wait(batcher.submit([1], NEVER), PATIENCE_SECONDS)
    doubler.fault = None
    assert results(batcher.submit([2], NEVER)) == [4]


def test_too_few_results_are_an_error_for_all_and_not_a_wrong_answer() -> None:
    with running(Batcher(lambda items: items[1:], 4, 10)) as batcher:
        futures = batcher.submit([1, 2, 3], NEVER)
        wait(futures, PATIENCE_SECONDS)
    assert {type(future.exception(0)) for future in futures} == {RuntimeError}


def test_closing_answers_what_waits(batcher: Batcher[int, int], doubler: Doubler) -> None:
    futures = batcher.submit(list(range(1, 10)), NEVER)
    doubler.free.set()
    batcher.close(PATIENCE_SECONDS)
    assert [future.done() for future in futures] == [True] * 9
    assert results(futures) == [2 * number for number in range(1, 10)]


def test_a_closed_batcher_refuses(batcher: Batcher[int, int], doubler: Doubler) -> None:
    doubler.free.set()
    batcher.close(PATIENCE_SECONDS)
    with pytest.raises(NotReadyError):
        batcher.submit([1], NEVER)


@pytest.mark.parametrize("workers", [1, 3])
def test_closing_ends_the_workers(doubler: Doubler, workers: int) -> None:
    doubler.free.set()
    before = threading.enumerate()
    with running(Batcher(doubler, 4, 10, workers)) as batcher:
        results(batcher.submit([1], NEVER))
    assert threading.enumerate() == before


def test_closing_does_not_wait_longer_than_it_is_told_and_leaves_nobody_waiting(
    batcher: Batcher[int, int], doubler: Doubler
) -> None:
    (stuck,) = batcher.submit([1], NEVER)
    batcher.close(0)
    with pytest.raises(NotReadyError):
        stuck.result(PATIENCE_SECONDS)
    assert [1] not in doubler.batches


def test_constructing_starts_no_thread(doubler: Doubler) -> None:
    before = threading.active_count()
    Batcher(doubler, 4, 10)
    assert threading.active_count() == before


def test_a_batcher_that_was_not_started_refuses(doubler: Doubler) -> None:
    with pytest.raises(NotReadyError):
        Batcher(doubler, 4, 10).submit([1], NEVER)


def test_the_depth_counts_what_waits_and_not_what_is_worked_on(batcher: Batcher[int, int]) -> None:
    batcher.submit([1, 2, 3], NEVER)
    assert batcher.depth == 3


def test_each_item_reports_how_long_it_waited(doubler: Doubler, clock: Clock) -> None:
    waited: list[float] = []
    with running(Batcher(doubler, 4, 10, on_wait=waited.append, clock=clock)) as batcher:
        batcher.submit([0], NEVER)
        assert doubler.busy.wait(PATIENCE_SECONDS)
        early = batcher.submit([1], NEVER)
        clock.now = 2.0
        later = batcher.submit([2], NEVER)
        clock.now = 3.0
        doubler.free.set()
        results(early + later)
    assert waited == [0.0, 3.0, 1.0]


def test_how_long_a_batch_has_run_is_told_of_those_that_still_run(
    batcher: Batcher[int, int], doubler: Doubler, clock: Clock
) -> None:
    clock.now = 7.0
    assert batcher.longest_seconds() == 7.0
    doubler.busy.clear()
    second = batcher.submit([1], NEVER)
    doubler.free.set()
    results(second)
    clock.now = 9.0
    assert batcher.longest_seconds() == 0


def test_of_batches_that_run_at_once_the_longest_counts(doubler: Doubler, clock: Clock) -> None:
    with running(Batcher(doubler, 1, 10, workers=2, clock=clock)) as batcher:
        for clock.now in (1.0, 4.0):
            doubler.busy.clear()
            batcher.submit([0], NEVER)
            assert doubler.busy.wait(PATIENCE_SECONDS)
        clock.now = 5.0
        assert batcher.longest_seconds() == 4.0
        doubler.free.set()


@pytest.mark.parametrize("workers", [1, 3])
def test_under_many_threads_every_item_gets_its_own_result(workers: int) -> None:
    sizes: list[int] = []
    mistakes: list[tuple[int, int]] = []

    def double(numbers: list[int]) -> list[int]:
        sizes.append(len(numbers))
        return [2 * number for number in numbers]

    def ask(batcher: Batcher[int, int], first: int) -> None:
        for number in range(first, first + 300, 3):
            asked = [number, number + 1, number + 2]
            futures = batcher.submit(asked, NEVER)
            dropped = number % 7 == 0 and futures[0].cancel()
            answers = [
                None if dropped and one == number else future for one, future in zip(asked, futures, strict=True)
            ]
            mistakes.extend(
                (one, answer.result(PATIENCE_SECONDS))
                for one, answer in zip(asked, answers, strict=True)
                if answer and answer.result(PATIENCE_SECONDS) != 2 * one
            )

    with running(Batcher(double, 8, 1000, workers)) as batcher:
        askers = [threading.Thread(target=ask, args=(batcher, 1000 * index)) for index in range(16)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join(PATIENCE_SECONDS)
            assert not asker.is_alive()
    assert mistakes == []
    assert max(sizes) <= 8


def test_closing_while_many_submit_leaves_nobody_without_an_answer() -> None:
    accepted: list[Future[int]] = []
    begun = threading.Barrier(5)

    def ask(batcher: Batcher[int, int]) -> None:
        begun.wait(PATIENCE_SECONDS)
        with suppress(NotReadyError):
            while True:
                with suppress(QueueFullError):
                    accepted.extend(batcher.submit([1], NEVER))

    batcher: Batcher[int, int] = Batcher(lambda numbers: numbers, 8, 50)
    batcher.start()
    askers = [threading.Thread(target=ask, args=(batcher,)) for _ in range(4)]
    for asker in askers:
        asker.start()
    begun.wait(PATIENCE_SECONDS)
    batcher.close(PATIENCE_SECONDS)
    for asker in askers:
        asker.join(PATIENCE_SECONDS)
    assert results(accepted) == [1] * len(accepted)
