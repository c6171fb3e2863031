"""deploy/prometheus: what promtool says of it, and that it speaks of what exists."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.cost import PAID_AN_HOUR
from service.metrics import SECONDS_BUCKETS, Metrics

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
ALERTS = {
    "PurigateDown",
    "PurigateNotReady",
    "PurigateUnstable",
    "PurigateErrorRateHigh",
    "PurigateLatencyHigh",
    "PurigateQueueNearCapacity",
    "PurigateConnectionsRefused",
    "PurigateQuotaStoreDegraded",
    "PurigatePurifierRemoved",
    "PurigatePurifierMixSkewed",
    "PurigateCostPerQueryHigh",
}
SUFFIXES = r"(?:_bucket|_sum|_count)$"


def promtool(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("needs promtool: Debian's package prometheus")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)


def rules(file: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules" / file).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def unit_tests(file: str) -> list[dict[str, Any]]:
    named: list[dict[str, Any]] = yaml.safe_load((FOLDER / "tests" / file).read_text())["tests"]
    return named


def test_the_configuration_and_its_rules_are_valid() -> None:
    found = promtool("check", "config", FOLDER / "prometheus.yml")
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("file", ["recording.yml", "alerts.yml"])
def test_the_rules_say_what_they_should(file: str) -> None:
    found = promtool("test", "rules", FOLDER / "tests" / file)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("rule_files", "prices", "paid"),
    [
        ([], (2.5, 2.5, 2.5, 2.5), 10),
        ([], (2.5, 4, 0), 6.5),
        (["devices.yml"], (2.5, 2.5, 2.5, 2.5), 2.5),
        (["devices.yml"], (0, 0), None),
    ],
)
def test_a_device_that_gateways_share_is_paid_once(
    tmp_path: Path, rule_files: list[str], prices: tuple[float, ...], paid: float | None
) -> None:
    query = PAID_AN_HOUR.replace("$instance", ".*")
    series = [
        {"series": f'purigate_device_hour_price_dollars{{job="purigate", instance="{number}"}}', "values": f"{price}x9"}
        for number, price in enumerate(prices)
    ]
    case = {"expr": query, "eval_time": "5m", "exp_samples": [] if paid is None else [{"labels": "{}", "value": paid}]}
    test = {"interval": "1m", "input_series": series, "promql_expr_test": [case]}
    files = [str(FOLDER / "shared" / file) for file in rule_files]
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": files, "tests": [test]}))
    found = promtool("test", "rules", tmp_path / "test.yml")
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    runbook = (FOLDER.parents[1] / "docs" / "operations.md").read_text().split("## Runbook")[1].split("\n## ")[0]
    assert {rule["alert"] for rule in rules("alerts.yml")} == ALERTS
    assert set(re.findall(r"^### (\w+)$", runbook, re.MULTILINE)) == ALERTS


def test_every_alert_is_tested_firing_and_not_firing() -> None:
    cases = [case for test in unit_tests("alerts.yml") for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == ALERTS
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == ALERTS


@pytest.mark.parametrize("rule", rules("alerts.yml"), ids=lambda rule: rule["alert"])
def test_an_alert_waits_and_tells_how_bad_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert re.fullmatch(r"\d+m", rule["for"])
    assert "$value" in rule["annotations"]["description"]
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"


def test_the_threshold_of_the_latency_is_a_bucket() -> None:
    """Between two buckets a quantile is a guess, which can lie far on the other side of the threshold."""
    (expression,) = (rule["expr"] for rule in rules("alerts.yml") if rule["alert"] == "PurigateLatencyHigh")
    assert float(expression.partition(">")[2]) in SECONDS_BUCKETS


def test_every_recorded_metric_is_tested_or_used_by_one_that_is() -> None:
    """An alert is tested: see above."""
    recorded = {rule["record"]: rule["expr"] for rule in rules("recording.yml")}
    tested = [case["expr"] for test in unit_tests("recording.yml") for case in test["promql_expr_test"]]
    tested += [rule["expr"] for rule in rules("alerts.yml")]
    covered: set[str] = set()
    while tested:
        named = set(re.findall(r"[\w:]+", tested.pop())) & recorded.keys()
        tested += [recorded[name] for name in named - covered]
        covered |= named
    assert covered == recorded.keys()


@pytest.mark.parametrize("file", ["recording.yml", "alerts.yml"])
def test_every_metric_of_a_rule_exists(file: str) -> None:
    kinds = {"counter": "_total", "info": "_info"}
    declared = {family.name + kinds.get(family.type, "") for family in Metrics().registry.collect()}
    plain = " ".join(re.sub(r"[\w:]+:[\w:]+", "", rule["expr"]) for rule in rules(file))
    named = {re.sub(SUFFIXES, "", name) for name in re.findall(r"\bpurigate_\w+", plain)}
    assert named <= declared
