"""deploy/grafana: the files are those of the code, and every panel says what it shows."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.build import documents
from deploy.grafana.panels import Query, graph
from service.metrics import Metrics

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
BOARDS = {name: json.loads(text) for name, text in documents().items()}
PANELS = [
    pytest.param(panel, id=f"{board['uid']}: {panel['title']}")
    for board in BOARDS.values()
    for panel in board["panels"]
    if panel["type"] != "row"
]
RULES = [FOLDER.parent / "prometheus" / file for file in ("rules/recording.yml", "shared/devices.yml")]


def test_the_committed_files_are_those_that_the_code_writes() -> None:
    committed = {path.name: path.read_text() for path in (FOLDER / "dashboards").iterdir()}
    assert committed == documents(), "run python -m deploy.grafana.build"


@pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("--check", 2), ("cost", 2)])
def test_they_are_only_written_if_nothing_else_is_said(argument: str, status: int) -> None:
    before = {path: path.stat().st_mtime_ns for path in (FOLDER / "dashboards").iterdir()}
    command = [sys.executable, "-m", "deploy.grafana.build", argument]
    done = subprocess.run(command, capture_output=True, check=False, cwd=FOLDER.parents[1])
    assert done.returncode == status
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert [target["legendFormat"] for target in panel["targets"] if not target["legendFormat"]] == []


@pytest.mark.parametrize("panel", PANELS)
def test_only_what_counts_requests_is_told_in_requests_a_second(panel: dict[str, Any]) -> None:
    if panel["fieldConfig"]["defaults"]["unit"] == "reqps":
        for target in panel["targets"]:
            assert re.findall(r"purigate_\w+", target["expr"]) in (
                ["purigate_http_requests_total"],
                ["purigate_rejected_total"],
            )


def test_no_query_of_a_panel_is_left_out() -> None:
    with pytest.raises(ValueError, match="zip"):
        graph("Nine", "Too many.", "short", *[Query("vector(1)", "one")] * 9)


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_asks_the_provisioned_datasource(panel: dict[str, Any]) -> None:
    provisioned = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "prometheus.yml").read_text())
    (datasource,) = provisioned["datasources"]
    asked = {one["datasource"]["uid"] for one in (panel, *panel["targets"])}
    assert asked == {datasource["uid"]}


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_asks_for_metrics_that_exist(panel: dict[str, Any]) -> None:
    kinds = {"counter": "_total", "info": "_info"}
    declared = {family.name + kinds.get(family.type, "") for family in Metrics().registry.collect()}
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    declared |= {rule["record"] for group in groups for rule in group["rules"]}
    named = re.findall(r"(?:\w+:)?purigate_[\w:]+|purigate:\w+", " ".join(one["expr"] for one in panel["targets"]))
    assert {re.sub(r"_(?:bucket|sum|count)$", "", name) for name in named} <= declared


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_of_the_gateway_shows_the_replicas_that_were_chosen(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        metrics = re.findall(r"\b(?:instance:)?purigate_[\w:]+(\{)?|\bup\{", target["expr"])
        assert target["expr"].count('instance=~"$instance"') == len(metrics)


@pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))
def test_panels_have_numbers_of_their_own_and_lie_side_by_side(board: dict[str, Any]) -> None:
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    cells = [
        (x, y)
        for panel in board["panels"]
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))
def test_a_dashboard_leads_to_the_others_and_keeps_what_was_chosen(board: dict[str, Any]) -> None:
    (link,) = board["links"]
    assert set(link["tags"]) <= set(board["tags"])
    assert (link["type"], link["includeVars"], link["keepTime"]) == ("dashboards", True, True)
    assert [variable["name"] for variable in board["templating"]["list"]] == ["instance", "rate"]
