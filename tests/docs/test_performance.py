"""The tables of docs/records/performance are those of their records, and docs/performance.md tells the same."""

from pathlib import Path

import pytest

from benchmarks.record import Record
from benchmarks.table import markdown, with_spread

DOCS = Path(__file__).parents[2] / "docs"
RECORDS = DOCS / "records" / "performance"
CURRENT = ["after", "without-avx512", "h200", "h200-wrn28-10"]
"""Those whose goals docs/performance.md tells."""


@pytest.mark.parametrize("name", ["before", *CURRENT])
def test_the_tables_of_a_page_are_those_of_its_record(name: str) -> None:
    record = Record.read(RECORDS / f"{name}.json")
    assert markdown(record) in (RECORDS / f"{name}.md").read_text()


@pytest.mark.parametrize("name", ["before", *CURRENT])
def test_the_reference_page_links_the_tables_of_each_record(name: str) -> None:
    assert f"(records/performance/{name}.md)" in (DOCS / "performance.md").read_text()


@pytest.mark.parametrize("name", CURRENT)
def test_figures_with_a_goal_are_told_as_in_their_record(name: str) -> None:
    page = (DOCS / "performance.md").read_text()
    figures = [one for one in Record.read(RECORDS / f"{name}.json").figures if one.met is not None]
    told = [with_spread((one.median, one.low, one.high), 2) for one in figures]
    assert figures
    assert [one for one in told if one not in page] == []
