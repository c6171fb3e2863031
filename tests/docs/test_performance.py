"""The tables of docs/performance.md are those of the record that it names."""

from pathlib import Path

import pytest

from benchmarks.record import Record
from benchmarks.table import markdown

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["before", "after", "without-avx512", "h200", "h200-wrn28-10"])
def test_the_tables_are_those_of_their_record(name: str) -> None:
    record = Record.read(DOCS / "records" / "performance" / f"{name}.json")
    assert markdown(record) in (DOCS / "performance.md").read_text()
