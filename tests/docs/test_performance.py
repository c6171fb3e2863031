"""The tables of docs/records/performance are those of their records, and docs/performance.md tells the same."""

from pathlib import Path

import pytest

from benchmarks.record import Record
from benchmarks.table import markdown, with_spread

DOCS = Path(__file__).parents[2] / "docs"
RECORDS = DOCS / "records" / "performance"
COLUMNS = {"ice-lake": 1, "ice-lake-128": 1, "after": 2, "h200": 3, "h200-wrn28-10": 3}
"""Of the table of goals in docs/performance.md, by the record that it tells."""
EARLIER = ("before", "without-avx512")
"""Whose goals it does not tell."""
ROWS = {
    "defended over undefended, offline": ("defended over undefended, offline", "the same, WRN-28-10"),
    "pass of 12 purifiers over 1, batch 1": ("pass of 12 purifiers over 1, batch 1",),
    "pass of 12 purifiers over 1, batch 32": ("the same, batch 32",),
    "served over offline, undefended": ("served over offline, undefended",),
    "served over offline, defended": ("the same, defended",),
    "no-op engine, one connection, p50 in ms": ("no-op engine, one connection",),
    "undefended over LitServe": ("the same, with our engine in LitServe",),
    "undefended over mosec": ("the same, with our engine in mosec",),
    "undefended over plain LitServe": ("undefended over LitServe with the network as torch runs it",),
    "undefended over plain mosec": ("undefended over mosec with the network as torch runs it",),
}
"""How the rows begin that tell a figure, by its name without the device."""


@pytest.mark.parametrize("name", [*COLUMNS, *EARLIER])
def test_the_tables_of_a_page_are_those_of_its_record(name: str) -> None:
    record = Record.read(RECORDS / f"{name}.json")
    assert markdown(record) in (RECORDS / f"{name}.md").read_text()


@pytest.mark.parametrize("name", [*COLUMNS, *EARLIER])
def test_the_reference_page_links_the_tables_of_each_record(name: str) -> None:
    assert f"(records/performance/{name}.md)" in (DOCS / "performance.md").read_text()


@pytest.mark.parametrize("name", COLUMNS)
def test_figures_with_a_goal_are_told_in_their_row_and_column(name: str) -> None:
    lines = (DOCS / "performance.md").read_text().partition("## Goals and status")[2].splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    figures = [one for one in Record.read(RECORDS / f"{name}.json").figures if one.met is not None]
    assert figures
    for figure in figures:
        begins = ROWS[figure.name.removesuffix(", cpu").removesuffix(", cuda")]
        told = [row[COLUMNS[name]] for row in cells if row[0].startswith(begins)]
        value = with_spread((figure.median, figure.low, figure.high), 2)
        assert any(value in cell for cell in told), (figure.name, value, told)
