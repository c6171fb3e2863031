"""Users keep their own time."""

from loadtest.pace import Pace


class User:
    """Asks on a clock of its own, which only its requests and pauses move."""

    def __init__(self, begins: float) -> None:
        self.now = 0.0
        self.pace = Pace(1, lambda: self.now)
        self.now = begins
        self.pace.begin()
        self.asked: list[float] = []

    def ask(self, *durations: float) -> list[float]:
        for duration in durations:
            self.asked.append(self.now)
            self.now += duration
            self.now += self.pace.pause()
        return self.asked


def test_a_user_asks_once_in_a_pace_however_long_an_answer_takes() -> None:
    assert User(0.25).ask(0.5, 0.125, 0.75, 0) == [0.25, 1.25, 2.25, 3.25]


def test_users_that_were_made_together_do_not_come_together() -> None:
    assert User(0).ask(0, 0)[1] != User(0.5).ask(0, 0)[1]


def test_after_a_late_answer_a_user_asks_at_once_and_makes_up_for_nothing() -> None:
    assert User(0).ask(2.5, 0, 0) == [0, 2.5, 3.5]
