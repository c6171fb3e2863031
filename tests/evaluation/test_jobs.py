"""The suites: what they measure, and in which order."""

from evaluation.jobs import SUITES, TABLE_DEFENSES


def test_the_table_fills_the_column_of_the_full_budget_first() -> None:
    jobs = list(SUITES["table"](500, ()))

    budgets = [job.queries for job in jobs]
    assert budgets == sorted(budgets, reverse=True)
    assert set(budgets) == {500, 200}
    cells = [(job.defense, type(job.attack), job.queries) for job in jobs]
    assert len(cells) == len(set(cells)) == len(TABLE_DEFENSES) * (6 + 5)


def test_a_budget_below_the_smaller_one_of_the_paper_is_asked_once() -> None:
    cells = [(job.defense, type(job.attack), job.queries) for job in SUITES["table"](50, ())]

    assert {queries for _, _, queries in cells} == {50}
    assert len(cells) == len(set(cells)) == len(TABLE_DEFENSES) * 6
