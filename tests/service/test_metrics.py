"""The metrics by themselves; tests/integration shows them after a query."""

from service.metrics import Metrics


def test_every_metric_bears_the_prefix() -> None:
    assert [one.name for one in Metrics().registry.collect() if not one.name.startswith("purigate_")] == []


def test_every_metric_says_what_it_is() -> None:
    assert [one.name for one in Metrics().registry.collect() if not one.documentation] == []


def test_two_apps_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.cancelled.inc()
    assert other.registry.get_sample_value("purigate_cancelled_total") == 0


def test_they_are_rendered_as_text_for_prometheus() -> None:
    metrics = Metrics()
    metrics.cancelled.inc(3)
    assert b"\npurigate_cancelled_total 3.0\n" in metrics.render()
