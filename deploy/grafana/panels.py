"""The few kinds of panel and dashboard that ours are made of."""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="purigate-prometheus")
TAG = "purigate"
WIDTH = 24
NUMBER_HEIGHT, GRAPH_HEIGHT = 4, 8
GREEN, YELLOW, RED = "green", "yellow", "red"
FILL_PERCENT, STACK_FILL_PERCENT = 5, 40
RATES = ("1m", "5m", "15m", "1h", "6h")
DEFAULT_RATE = "5m"


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        expression: in PromQL, with `$instance` and `$rate`.
        legend: of its series, with `{{label}}`.
    """

    expression: str
    legend: str


@dataclass(frozen=True)
class Thresholds:
    """Where a value turns from green to yellow to red; downwards if `red` is below `yellow`."""

    yellow: float
    red: float

    def build(self) -> dashboard.ThresholdsConfig:
        """As Grafana has them: each color from its value upwards."""
        low, high = (GREEN, RED) if self.yellow < self.red else (RED, GREEN)
        middle, top = sorted((self.yellow, self.red))
        steps = [
            models.Threshold(value=None, color=low),
            models.Threshold(value=middle, color=YELLOW),
            models.Threshold(value=top, color=high),
        ]
        return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


NEUTRAL = (
    dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps([models.Threshold(value=None, color=GREEN)])
)


def number(
    title: str, description: str, unit: str, query: Query, thresholds: Thresholds | None = None, *, width: int = 4
) -> stat.Panel:
    """The last value, large, colored by thresholds, over a small graph of what it was."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .thresholds(thresholds.build() if thresholds else NEUTRAL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_mode(common_models.BigValueColorMode.VALUE)
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .with_target(_target(query, "A"))
        .span(width)
        .height(NUMBER_HEIGHT)
    )


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    stacked: bool = False,
    limit: float | None = None,
    width: int = 12,
) -> timeseries.Panel:
    """Lines over time, or areas that add up; a dashed line at `limit`."""
    stacking = common_models.StackingMode.NORMAL if stacked else common_models.StackingMode.NONE
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .min(0)
        .fill_opacity(STACK_FILL_PERCENT if stacked else FILL_PERCENT)
        .stacking(common.StackingConfig().mode(stacking).group("A"))
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["mean", "max", "lastNotNull"])
        )
        .span(width)
        .height(GRAPH_HEIGHT)
    )
    if limit is not None:
        steps = [models.Threshold(value=None, color=GREEN), models.Threshold(value=limit, color=RED)]
        panel.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED))
    for letter, query in zip("ABCDEFGH"[: len(queries)], queries, strict=True):
        panel.with_target(_target(query, letter))
    return panel


Panel = stat.Panel | timeseries.Panel
Rows = Sequence[tuple[str, Sequence[Panel]]]


def board(title: str, uid: str, description: str, rows: Rows) -> models.Dashboard:
    """A dashboard of titled rows of panels, with our variables and links to its neighbors."""
    link = (
        dashboard.DashboardLink("Purigate")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .include_vars(True)
        .keep_time(True)
    )
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .timezone("browser")
        .readonly()
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(link)
        .with_variable(_instance())
        .with_variable(_rate())
    )
    for name, panels in rows:
        made.with_row(dashboard.Row(name))
        for panel in panels:
            made.with_panel(panel)
    finished = made.build()
    for identifier, panel_or_row in enumerate(finished.panels or [], start=1):
        panel_or_row.id_val = identifier
    return finished


def _target(query: Query, letter: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend)
    return target.range().ref_id(letter).datasource(DATASOURCE)


def _instance() -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable("instance")
        .label("Replica")
        .description("The gateways that the panels show.")
        .datasource(DATASOURCE)
        .query("label_values(purigate_ready, instance)")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _rate() -> dashboard.IntervalVariable:
    return (
        dashboard.IntervalVariable("rate")
        .label("Rate over")
        .description("How far back each point of a rate looks; at least four scrapes.")
        .values(",".join(RATES))
        .current(models.VariableOption(selected=True, text=DEFAULT_RATE, value=DEFAULT_RATE))
    )
