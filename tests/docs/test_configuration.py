"""docs/configuration.md says what the code does."""

import re
from pathlib import Path

import pytest

from service.errors import HEAD_TOO_LARGE, INTERNAL, PROBLEMS, TOO_MANY_CONNECTIONS
from service.metrics import Metrics
from service.settings import ENVIRONMENT_PREFIX, HostSettings, Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def configuration() -> str:
    return (ROOT / "docs" / "configuration.md").read_text()


def test_the_table_of_settings_lists_every_setting_with_its_flag_and_meaning(configuration: str) -> None:
    documented = re.findall(r"^\| `(PURIGATE_\w+)` \| `--([\w-]+)` \| .* \| (.*) \|$", configuration, re.MULTILINE)
    declared = [
        (ENVIRONMENT_PREFIX + name.upper(), name.replace("_", "-"), field.description)
        for name, field in Settings.model_fields.items()
    ]
    assert documented == declared


def test_the_command_that_holds_networks_is_written_with_every_flag_that_it_has(configuration: str) -> None:
    (command,) = re.findall(r"^purigate networks .*$", configuration, re.MULTILINE)
    assert set(re.findall(r"--([\w-]+)", command)) == {name.replace("_", "-") for name in HostSettings.model_fields}


def test_the_defaults_in_the_table_of_settings_are_those_of_the_code(configuration: str) -> None:
    documented = dict(re.findall(r"^\| `PURIGATE_(\w+)` \| `--[\w-]+` \| `(.*?)` \|", configuration, re.MULTILINE))
    fixed = {
        name.upper(): str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        for name, field in Settings.model_fields.items()
        if field.default_factory is None and field.default is not None
    }
    assert documented == fixed


def test_the_table_of_metrics_lists_every_metric(configuration: str) -> None:
    documented = set(re.findall(r"^\| `(purigate_\w+)` \|", configuration, re.MULTILINE))
    suffixes = {"counter": "_total", "info": "_info"}
    declared = {family.name + suffixes.get(family.type, "") for family in Metrics().registry.collect()}
    assert documented == declared


def test_the_readme_lists_every_problem_with_its_status() -> None:
    documented = re.findall(r"^\| (\d{3}) \| `([\w-]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    problems = (*PROBLEMS.values(), HEAD_TOO_LARGE, TOO_MANY_CONNECTIONS, INTERNAL)
    declared = [(str(int(problem.status)), problem.slug) for problem in problems]
    assert sorted(documented) == sorted(declared)
