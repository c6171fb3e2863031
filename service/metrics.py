"""Every metric of the service, by name; what records them lies where the thing happens.

Labels are few and bounded: route templates, status codes, names from the bundle, from the keys file or from a table;
never a path, a key or anything else that a client chooses.
"""

from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

PREFIX = "purigate"
SECONDS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one app, in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.http_requests = self._counter("http_requests", "Requests answered.", "route", "method", "code")
        self.http_request_duration = self._histogram(
            "http_request_duration_seconds", "From the head of a request to the end of its answer.", "route"
        )
        self._request_children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self.queries = self._counter("queries", "Images asked about, by what became of them.", "outcome")
        self.stage_duration = self._histogram("stage_duration_seconds", "What a query spent in each stage.", "stage")
        self.device_seconds = self._counter("device_seconds", "Device time consumed.", "stage")
        self.device_hour_price = self._gauge("device_hour_price_dollars", "Price of one hour of the device; a setting.")
        self.batch_size = Histogram(
            f"{PREFIX}_batch_size",
            "Queries that went through the networks together.",
            buckets=BATCH_BUCKETS,
            registry=self.registry,
        )
        self.queue_depth = self._gauge("queue_depth", "Queries that wait for the device, or are decoded for it.")
        self.queue_capacity = self._gauge("queue_capacity", "Most queries that may wait; a setting.")
        self.waiting_bytes = self._gauge("waiting_bytes", "Bytes of bodies that are read or await their answer.")
        self.rejected = self._counter("rejected", "Requests refused.", "reason")
        self.cancelled = self._counter("cancelled", "Queries dropped because their client left.")
        self.purifier_selected = self._counter("purifier_selected", "Patches purified.", "purifier")
        self.pool_size = self._gauge("pool_size", "Purifiers that queries go through now.")
        self.purifier_failures = self._counter(
            "purifier_failures", "Queries for which a purifier gave no numbers, and which drew again.", "purifier"
        )
        self.purifiers_removed = self._counter(
            "purifiers_removed", "Purifiers taken out of the pool because they gave no numbers.", "purifier"
        )
        self.out_of_memory = self._counter("out_of_memory", "Batches that did not fit the device and were halved.")
        self.prediction_changed = self._counter(
            "prediction_changed", "In shadow mode: queries whose label the defense would have changed."
        )
        self.key_queries = self._counter("key_queries", "Images that the holder of a key asked for.", "key", "outcome")
        self.quota_store_degraded = self._gauge("quota_store_degraded", "1 while the shared store of quotas is away.")
        self.audit_lines_lost = self._counter("audit_lines_lost", "Lines of the audit log that were not written.")
        self.reloads = self._counter("reloads", "Keys and bundles that were loaded anew.", "what", "outcome")
        for what, outcome in product(("keys", "bundle"), ("done", "failed")):  # or the first failure is no increase
            self.reloads.labels(what, outcome)
        self.ready = self._gauge("ready", "1 if queries are served now, else 0.")
        self.build = Info(f"{PREFIX}_build", "What runs.", registry=self.registry)
        self.bundle = Info(f"{PREFIX}_bundle", "What is served.", registry=self.registry)

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts a request that was answered; what each kind of it counts in is looked up once."""
        kind = route, method, status
        children = self._request_children.get(kind)
        if children is None:
            children = self.http_requests.labels(*kind), self.http_request_duration.labels(route)
            self._request_children[kind] = children
        requests, duration = children
        requests.inc()
        duration.observe(seconds)

    def render(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", documentation, registry=self.registry)

    def _histogram(self, name: str, documentation: str, *labels: str) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", documentation, labels, buckets=SECONDS_BUCKETS, registry=self.registry)
