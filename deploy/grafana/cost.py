"""The dashboard of cost: what a query takes of the device, what of that is the defense, and what it is worth."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.panels import Panel, Query, Thresholds, board, graph, number
from deploy.grafana.queries import IMAGES_A_SECOND, MEAN_BATCH, OURS

ANSWERED = f'sum(rate(purigate_queries_total{{{OURS}, outcome="answered"}}[$rate]))'
DEVICE = f"rate(purigate_device_seconds_total{{{OURS}}}[$rate])"
PURIFY, CLASSIFY = (
    f'sum(rate(purigate_device_seconds_total{{{OURS}, stage="{stage}"}}[$rate]))' for stage in ("purify", "classify")
)
PRICE = f"(purigate_device_hour_price_dollars{{{OURS}}} > 0)"
DOLLARS_AN_HOUR = f"sum(sum by (job, instance) ({DEVICE}) * on (job, instance) {PRICE})"
PAID_AN_HOUR = f"max{PRICE} * on () purigate:devices or sum{PRICE}"
DOLLARS_A_MILLION = f"1e6 * {DOLLARS_AN_HOUR} / 3600 / ({ANSWERED} > 0)"
MILLISECONDS = f"1000 * sum({DEVICE}) / ({ANSWERED} > 0)"
OVERHEAD = f"{PURIFY} / ({CLASSIFY} > 0)"
BUDGET = "purigate:budget_dollars_per_million_queries"
GRANTED = f'rate(purigate_key_queries_total{{{OURS}, outcome="granted"}}[$rate])'


def cost() -> Dashboard:
    """What a query costs, and who asks."""
    return board(
        "Purigate: cost",
        "purigate-cost",
        "What a query takes of the device, what the defense adds, and what that is in dollars"
        " (PURIGATE_DEVICE_HOUR_PRICE_DOLLARS). Queries are those that were answered.",
        (("Now", _now()), ("A query", _query()), ("The device", _device()), ("Keys", _keys())),
    )


def _now() -> tuple[Panel, ...]:
    return (
        number(
            "Dollars per million queries",
            "Device time at its price; the budget is a rule in deploy/prometheus/rules/recording.yml.",
            "currencyUSD",
            Query(DOLLARS_A_MILLION, "dollars"),
            Thresholds(15, 20),
            width=6,
        ),
        number(
            "Device time a query",
            "All stages.",
            "ms",
            Query(MILLISECONDS, "ms"),
        ),
        number(
            "Defense overhead",
            "Device time of purification over that of classification: 25 % says that the defense adds a quarter.",
            "percentunit",
            Query(OVERHEAD, "overhead"),
            Thresholds(0.5, 1),
        ),
        number(
            "Answered",
            "Images answered a second.",
            IMAGES_A_SECOND,
            Query(ANSWERED, "queries"),
        ),
        number(
            "Budget",
            "Dollars per million queries above which PurigateCostPerQueryHigh fires.",
            "currencyUSD",
            Query(BUDGET, "budget"),
            width=3,
        ),
        number(
            "Price",
            "Of one hour of the dearest device; a setting.",
            "currencyUSD",
            Query(f"max(purigate_device_hour_price_dollars{{{OURS}}})", "an hour"),
            width=3,
        ),
    )


def _query() -> tuple[Panel, ...]:
    return (
        graph(
            "Device time a query, by stage",
            "Device time over answered queries. Falls as batches grow.",
            "ms",
            Query(
                f"1000 * sum by (stage) ({DEVICE}) / on () group_left () ({ANSWERED} > 0)",
                "{{stage}}",
            ),
            stacked=True,
        ),
        graph(
            "Defense overhead",
            "Device time of purification over that of classification.",
            "percentunit",
            Query(OVERHEAD, "purify over classify"),
        ),
        graph(
            "Dollars per million queries",
            "Device time at its price, and the budget.",
            "currencyUSD",
            Query(DOLLARS_A_MILLION, "dollars per million"),
            Query(BUDGET, "budget"),
        ),
        graph(
            "Batch size",
            "Mean; larger batches make cheaper queries.",
            "short",
            Query(MEAN_BATCH, "mean"),
        ),
    )


def _device() -> tuple[Panel, ...]:
    return (
        graph(
            "Dollars an hour: paid and used",
            "What the devices cost, and the part of it in which they worked; the rest is idle."
            " Each replica has a device of its own, unless the rule purigate:devices tells how many all of them share.",
            "currencyUSD",
            Query(PAID_AN_HOUR, "paid"),
            Query(DOLLARS_AN_HOUR, "used"),
        ),
        graph(
            "Device use",
            "Seconds of its device that each replica uses a second: 100 % of each is a device that never rests."
            " Replicas that share one device reach 100 % together.",
            "percentunit",
            Query(f"sum by (instance) ({DEVICE})", "{{instance}}"),
        ),
    )


def _keys() -> tuple[Panel, ...]:
    return (
        graph(
            "Dollars an hour, by key",
            "The used part of the price, shared out by the images that each key was granted."
            " Keys are named by their ids; clients without a key are not here.",
            "currencyUSD",
            Query(
                f"sum by (key) ({GRANTED}) / on () group_left () (sum({GRANTED}) > 0)"
                f" * on () group_left () {DOLLARS_AN_HOUR}",
                "{{key}}",
            ),
            stacked=True,
        ),
        graph(
            "Images by key",
            "Images granted a second.",
            IMAGES_A_SECOND,
            Query(f"sum by (key) ({GRANTED})", "{{key}}"),
            stacked=True,
        ),
    )
