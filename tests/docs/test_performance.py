"""The tables of docs/performance.md are those of the record that it names."""

from pathlib import Path

from benchmarks.record import Record
from benchmarks.table import markdown

DOCS = Path(__file__).parents[2] / "docs"


def test_the_tables_before_are_those_of_their_record() -> None:
    record = Record.read(DOCS / "records" / "performance" / "before.json")
    assert markdown(record) in (DOCS / "performance.md").read_text()
