"""docs/operations.md names only what exists, and all that an operator acts on."""

import re
from pathlib import Path

import pytest

from service.errors import HEAD_TOO_LARGE, PROBLEMS, TOO_MANY_CONNECTIONS
from service.metrics import Metrics
from service.settings import Settings

ROOT = Path(__file__).parents[2]
LEVELS = ("error", "exception")


@pytest.fixture
def operations() -> str:
    return (ROOT / "docs" / "operations.md").read_text()


@pytest.fixture
def configuration() -> str:
    return (ROOT / "docs" / "configuration.md").read_text()


def events(*levels: str) -> set[str]:
    """What the service logs at these levels."""
    call = re.compile(rf'(?:log|get_logger\(\))\.(?:{"|".join(levels)})\(\s*"(\w+)"(?: if \w+ else "(\w+)")?')
    sources = (path.read_text() for path in (ROOT / "service").rglob("*.py"))
    return {name for source in sources for found in call.findall(source) for name in found if name}


def test_every_metric_that_it_names_exists(operations: str) -> None:
    suffixes = {"counter": "_total", "info": "_info"}
    declared = {family.name + suffixes.get(family.type, "") for family in Metrics().registry.collect()}
    assert set(re.findall(r"purigate_\w+", operations)) <= declared


def test_every_reason_that_it_names_exists(operations: str) -> None:
    reasons = {problem.slug for problem in (*PROBLEMS.values(), HEAD_TOO_LARGE, TOO_MANY_CONNECTIONS)}
    named = {name for found in re.findall(r'reason=~?"([\w|-]+)"', operations) for name in found.split("|")}
    assert named <= reasons | {"head-timeout"}


def test_every_warning_and_error_that_is_logged_is_in_the_runbook(operations: str) -> None:
    assert len(events("warning", *LEVELS)) > 10
    assert {event for event in events("warning", *LEVELS) if f"`{event}`" not in operations} == set()


def test_every_section_of_the_runbook_says_what_to_look_at(operations: str) -> None:
    runbook = operations.partition("## Runbook")[2].partition("\n## ")[0]
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", runbook, re.MULTILINE | re.DOTALL))
    assert len(sections) == runbook.count("\n### ") > 0
    for name, text in sections.items():
        assert name.startswith("Purigate")
        assert re.search(r"`[^`]*(?:purigate_|/livez|redis)", text), name
        assert "\n- " in text, name


def test_every_line_that_is_logged_is_explained(configuration: str) -> None:
    logged = events("info", "warning", *LEVELS)
    documented = set(re.findall(r"^\| `(\w+)` \| (?:info|warning|error) \|", configuration, re.MULTILINE))
    assert documented == logged


def test_it_says_what_to_decide_with_every_setting_and_names_no_other(operations: str) -> None:
    table = operations.partition("| settings | decide |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table)) == set(Settings.model_fields)
    named = set(re.findall(r"`((?:body|decode|drain|max|queue|redis|request|response)_\w+)`", operations))
    assert named <= set(Settings.model_fields)
    variables = set(re.findall(r"PURIGATE_(\w+)", operations))
    assert variables <= {name.upper() for name in Settings.model_fields}


def test_every_metric_is_put_to_use(operations: str) -> None:
    suffixes = {"counter": "_total", "info": "_info"}
    declared = {family.name + suffixes.get(family.type, "") for family in Metrics().registry.collect()}
    assert declared - set(re.findall(r"purigate_\w+", operations)) == set()
