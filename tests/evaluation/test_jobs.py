"""The suites: what they measure, and in which order."""

from pathlib import Path

from evaluation.attacks import Transfer
from evaluation.jobs import SUITES, TABLE_DEFENSES, Subject

NOTHING = Subject(Path(), ())


def test_the_table_fills_the_column_of_the_full_budget_first() -> None:
    jobs = list(SUITES["table"](500, NOTHING))

    budgets = [job.queries for job in jobs]
    assert budgets == sorted(budgets, reverse=True)
    assert set(budgets) == {500, 200}
    cells = [(job.defense, type(job.attack), job.queries) for job in jobs]
    assert len(cells) == len(set(cells)) == len(TABLE_DEFENSES) * (6 + 5)


def test_a_budget_below_the_smaller_one_of_the_paper_is_asked_once() -> None:
    cells = [(job.defense, type(job.attack), job.queries) for job in SUITES["table"](50, NOTHING)]

    assert {queries for _, _, queries in cells} == {50}
    assert len(cells) == len(set(cells)) == len(TABLE_DEFENSES) * 6


def test_adaptive_attackers_bring_the_classifier_and_then_the_pool_too(bundle_folder: Path) -> None:
    attacks = [job.attack for job in SUITES["adaptive"](500, Subject(bundle_folder, ()))]

    brought = [attack for attack in attacks if isinstance(attack, Transfer)]
    assert [one.surrogate for one in brought] == [bundle_folder] * 2
    assert [one.defense for one in brought] == ["none", "puridefense"]
    hashes = {one.surrogate_sha256 for one in brought}
    assert len(hashes) == 2
    assert None not in hashes
