"""Draws the graphs of a dashboard as a picture, from what a Prometheus knows; for documents, where no Grafana is.

python -m deploy.grafana.render --prometheus http://localhost:9090 --output docs/cost.svg
"""

import json
import re
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import matplotlib as mpl
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deploy.grafana.build import FOLDER
from deploy.grafana.queries import IMAGES_A_SECOND

COLUMNS = 2
POINTS = 200
UNITS = {
    "currencyUSD": "dollars",
    "ms": "ms",
    "percentunit": "share",
    "reqps": "requests a second",
    IMAGES_A_SECOND: "images a second",
    "short": "",
}
Series = dict[str, Any]


def main(
    prometheus: Annotated[str, typer.Option(help="Where it answers.")],
    output: Annotated[Path, typer.Option(help="The picture; its ending is its format.")],
    dashboard: Annotated[str, typer.Option(help="Which one: cost or operation.")] = "cost",
    minutes: Annotated[float, typer.Option(help="How far back.")] = 15,
    rate: Annotated[str, typer.Option(help="As the dashboard's variable.")] = "1m",
) -> None:
    """Asks what the graphs of the dashboard ask and draws the answers."""
    board = json.loads((FOLDER / f"{dashboard}.json").read_text())
    panels = [panel for panel in board["panels"] if panel["type"] == "timeseries"]
    rows = -(-len(panels) // COLUMNS)
    end = time.time()
    begin = end - 60 * minutes
    figure = Figure(figsize=(12, 2.6 * rows), layout="constrained")
    with httpx.Client(base_url=prometheus) as client:
        for axes, panel in zip(figure.subplots(rows, COLUMNS, squeeze=False).flat, panels, strict=False):
            found = [one for target in panel["targets"] for one in _ask(client, target, rate, begin, end)]
            _draw(axes, panel, found, end)
    figure.suptitle(board["title"])
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": dashboard}):
        figure.savefig(output, metadata={"Date": None} if output.suffix == ".svg" else None)


def _ask(client: httpx.Client, target: dict[str, Any], rate: str, begin: float, end: float) -> list[Series]:
    """The series of one query, each with its legend."""
    query = target["expr"].replace("$instance", ".*").replace("$rate", rate)
    span = {"start": begin, "end": end, "step": (end - begin) / POINTS}
    answer = client.post("/api/v1/query_range", data={"query": query, **span})
    answer.raise_for_status()
    found = answer.json()["data"]["result"]
    return [{**one, "legend": _legend(target["legendFormat"], one["metric"])} for one in found]


def _legend(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda name: labels.get(name[1], ""), template)


def _draw(axes: Axes, panel: dict[str, Any], found: list[Series], end: float) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    times = sorted({time for one in found for time, _ in one["values"]})
    minutes = [(time - end) / 60 for time in times]
    lines = {one["legend"]: dict(one["values"]) for one in found}
    values = [[float(line.get(time, "nan" if not stacked else 0)) for time in times] for line in lines.values()]
    if stacked:
        axes.stackplot(minutes, *values, labels=list(lines), alpha=0.6)
    else:
        for name, line in zip(lines, values, strict=True):
            axes.plot(minutes, line, label=name)
    axes.set_title(panel["title"], fontsize="medium")
    axes.set_ylabel(UNITS.get(defaults["unit"], defaults["unit"]))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes", fontsize="small")
    if lines:
        axes.legend(fontsize="x-small", loc="best")


if __name__ == "__main__":
    typer.run(main)
