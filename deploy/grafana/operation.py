"""The operator's dashboard: is it up, is it fast, is it full, and is the defense what it should be."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.panels import Panel, Query, Thresholds, board, graph, number
from deploy.grafana.queries import IMAGES_A_SECOND, MEAN_BATCH, OURS

CLASSIFY = f'{OURS}, route=~"/classify.*"'
REQUESTS = f"sum(rate(purigate_http_requests_total{{{CLASSIFY}}}[$rate]))"
FAILURES = f'sum(rate(purigate_http_requests_total{{{CLASSIFY}, code=~"5.."}}[$rate]))'
DURATIONS = f"sum by (le) (rate(purigate_http_request_duration_seconds_bucket{{{CLASSIFY}}}[$rate]))"
BATCHES = f"rate(purigate_batch_size_bucket{{{OURS}}}[$rate])"


def operation() -> Dashboard:
    """What an operator looks at first."""
    return board(
        "Purigate: operation",
        "purigate-operation",
        "Whether the gateway answers, how fast, how full it is, and whether the defense works as it should.",
        (
            ("Now", _now()),
            ("Requests", _requests()),
            ("Queue and device", _queue_and_device()),
            ("Defense", _defense()),
            ("Keys and faults", _keys_and_faults()),
            ("Exporters", _exporters()),
        ),
    )


def _now() -> tuple[Panel, ...]:
    return (
        number(
            "Ready",
            "Share of the replicas that Prometheus asks which serve queries; 0 where none answers.",
            "percentunit",
            Query(f'sum(purigate_ready{{{OURS}}}) / count(up{{job="purigate", {OURS}}}) or vector(0)', "ready"),
            Thresholds(1, 0.5),
        ),
        number(
            "Alerts",
            "Alerts of Purigate that fire now; docs/operations.md says what to do.",
            "short",
            Query('count(ALERTS{alertname=~"Purigate.*", alertstate="firing"}) or vector(0)', "firing"),
            Thresholds(1, 2),
        ),
        number(
            "Requests",
            "Requests to /classify and /classify/batch, whatever the answer.",
            "reqps",
            Query(f"{REQUESTS} or vector(0)", "requests"),
        ),
        number(
            "Failing",
            "Share of these requests that were answered 5xx, refusals included; alerts above 5 %.",
            "percentunit",
            Query(
                f"({FAILURES} or vector(0)) / {REQUESTS}",
                "5xx",
            ),
            Thresholds(0.01, 0.05),
        ),
        number(
            "p99",
            "The slowest 1 % of these requests take at least so long; alerts above 2 s.",
            "s",
            Query(f"histogram_quantile(0.99, {DURATIONS})", "p99"),
            Thresholds(1, 2),
        ),
        number(
            "Fullest queue",
            "Queries that wait over those that may, of the fullest replica; alerts above 80 %.",
            "percentunit",
            Query(f"max(purigate_queue_depth{{{OURS}}} / purigate_queue_capacity{{{OURS}}})", "queue"),
            Thresholds(0.5, 0.8),
        ),
    )


def _requests() -> tuple[Panel, ...]:
    return (
        graph(
            "Requests by code",
            "Requests to /classify and /classify/batch by the status of their answer; 499 is a client that left.",
            "reqps",
            Query(f"sum by (code) (rate(purigate_http_requests_total{{{CLASSIFY}}}[$rate]))", "{{code}}"),
            stacked=True,
        ),
        graph(
            "Latency",
            "From the head of a request to the end of its answer, by quantile; interpolated within buckets.",
            "s",
            *(
                Query(f"histogram_quantile({quantile}, {DURATIONS})", f"p{quantile * 100:g}")
                for quantile in (0.5, 0.95, 0.99)
            ),
            limit=2,
        ),
        graph(
            "Where a query's time goes",
            "Mean time of a query in each stage. A query spends the whole of its batch's time in purify and classify.",
            "s",
            Query(
                f"sum by (stage) (rate(purigate_stage_duration_seconds_sum{{{OURS}}}[$rate]))"
                f" / sum by (stage) (rate(purigate_stage_duration_seconds_count{{{OURS}}}[$rate]))",
                "{{stage}}",
            ),
            stacked=True,
        ),
        graph(
            "Queries by outcome",
            "Images asked about, by what became of them.",
            IMAGES_A_SECOND,
            Query(f"sum by (outcome) (rate(purigate_queries_total{{{OURS}}}[$rate]))", "{{outcome}}"),
            stacked=True,
        ),
        graph(
            "Refused, by reason",
            "Requests refused, by the last word of the problem's type; the README lists them.",
            "reqps",
            Query(f"sum by (reason) (rate(purigate_rejected_total{{{OURS}}}[$rate]))", "{{reason}}"),
            stacked=True,
        ),
        graph(
            "Cancelled",
            "Images dropped because their client left before the answer.",
            IMAGES_A_SECOND,
            Query(f"sum by (instance) (rate(purigate_cancelled_total{{{OURS}}}[$rate]))", "{{instance}}"),
        ),
    )


def _queue_and_device() -> tuple[Panel, ...]:
    return (
        graph(
            "Queue",
            "Queries that wait for the device, and how many may.",
            "short",
            Query(f"purigate_queue_depth{{{OURS}}}", "waiting, {{instance}}"),
            Query(f"purigate_queue_capacity{{{OURS}}}", "capacity, {{instance}}"),
        ),
        graph(
            "Device use",
            "Seconds of the device used a second, by stage and replica. All are stacked:"
            " each device that never rests adds 100 %, so two replicas reach 200 %.",
            "percentunit",
            Query(
                f"sum by (instance, stage) (rate(purigate_device_seconds_total{{{OURS}}}[$rate]))",
                "{{stage}}, {{instance}}",
            ),
            stacked=True,
        ),
        graph(
            "Batch size",
            "Queries that went through the networks together. Always near max_batch: the device is the bottleneck.",
            "short",
            Query(MEAN_BATCH, "mean"),
            Query(f"histogram_quantile(0.95, sum by (le) ({BATCHES}))", "p95"),
        ),
        graph(
            "Bytes that wait",
            "Bodies that are read or await their answer; above max_waiting_bytes a request is refused.",
            "bytes",
            Query(f"purigate_waiting_bytes{{{OURS}}}", "{{instance}}"),
        ),
    )


def _defense() -> tuple[Panel, ...]:
    return (
        graph(
            "Purifier mix",
            "Share of the patches that each purifier got; all should be equal.",
            "percentunit",
            Query(
                f"sum by (purifier) (rate(purigate_purifier_selected_total{{{OURS}}}[$rate]))"
                f" / on () group_left () sum(rate(purigate_purifier_selected_total{{{OURS}}}[$rate]))",
                "{{purifier}}",
            ),
            stacked=True,
        ),
        graph(
            "Purifier mix: deviations from chance",
            "Chi-square of the shares of the last ten minutes, in standard deviations above what equal draws give."
            " Alerts above 8 if the shares lie more than 10 % from equal, too.",
            "short",
            Query(f"clamp_min(instance:purigate_purifier_mix:deviations10m{{{OURS}}}, 0)", "{{instance}}"),
            limit=8,
        ),
        graph(
            "Pool",
            "Purifiers in the pool now, and those that were taken out since the start because they gave no numbers.",
            "short",
            Query(f"purigate_pool_size{{{OURS}}}", "in the pool, {{instance}}"),
            Query(f"sum by (instance) (purigate_purifiers_removed_total{{{OURS}}})", "removed, {{instance}}"),
        ),
        graph(
            "Shadow mode: labels that the defense would change",
            "Over the answered queries; 0 where shadow mode is off.",
            "percentunit",
            Query(
                f"sum(rate(purigate_prediction_changed_total{{{OURS}}}[$rate]))"
                f' / sum(rate(purigate_queries_total{{{OURS}, outcome="answered"}}[$rate]))',
                "changed",
            ),
        ),
    )


def _keys_and_faults() -> tuple[Panel, ...]:
    return (
        graph(
            "Images by key",
            "What the holder of each key asked about, granted or refused for its quota.",
            IMAGES_A_SECOND,
            Query(
                f"sum by (key, outcome) (rate(purigate_key_queries_total{{{OURS}}}[$rate]))",
                "{{key}}, {{outcome}}",
            ),
        ),
        graph(
            "Quota store away",
            "1 while Redis does not answer in time and the fallback holds.",
            "short",
            Query(f"purigate_quota_store_degraded{{{OURS}}}", "{{instance}}"),
        ),
        graph(
            "Faults",
            "Batches that did not fit the device, purifiers removed, lines lost from the audit log.",
            "short",
            Query(f"sum(increase(purigate_out_of_memory_total{{{OURS}}}[$rate]))", "out of memory"),
            Query(f"sum(increase(purigate_purifiers_removed_total{{{OURS}}}[$rate]))", "purifiers removed"),
            Query(f"sum(increase(purigate_audit_lines_lost_total{{{OURS}}}[$rate]))", "audit lines lost"),
        ),
        graph(
            "Ready",
            "1 while queries are served: 0 while loading, draining and after a device fault.",
            "short",
            Query(f"purigate_ready{{{OURS}}}", "{{instance}}"),
        ),
    )


def _exporters() -> tuple[Panel, ...]:
    return (
        graph(
            "GPU",
            "Use as the driver tells it; needs the DCGM exporter.",
            "percent",
            Query("DCGM_FI_DEV_GPU_UTIL", "{{Hostname}}, GPU {{gpu}}"),
        ),
        graph(
            "GPU memory",
            "Used; needs the DCGM exporter.",
            "mbytes",
            Query("DCGM_FI_DEV_FB_USED", "{{Hostname}}, GPU {{gpu}}"),
        ),
        graph(
            "Redis",
            "1 while the Redis exporter reaches it.",
            "short",
            Query("redis_up", "{{instance}}"),
        ),
        graph(
            "Redis memory",
            "Used, and the limit. At it, Redis refuses to count (its policy is noeviction), and the fallback holds.",
            "bytes",
            Query("redis_memory_used_bytes", "used, {{instance}}"),
            Query("redis_memory_max_bytes > 0", "limit, {{instance}}"),
        ),
    )
