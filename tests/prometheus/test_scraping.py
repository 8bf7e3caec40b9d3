# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus scrapes a real agent, and answers what an operator asks."""

from __future__ import annotations

from collections import Counter

from agent_kernel_otel import semconv
from tests.prometheus.conftest import Run, Scraped
from tests.support.scraped import samples

_OF_PROMETHEUS = ("up", "scrape_")
DURATION = semconv.INVOCATION_DURATION.prometheus_name
STATUSES = {"success", "error", "denied", "cancelled"}
INVOCATIONS = semconv.INVOCATIONS.prometheus_name


def _after_work(scraped: Scraped) -> None:
    assert scraped.app.tell("everything") == "done", scraped.app.errors()
    scraped.prometheus.wait_for_scrapes(2)  # the first may have begun before


def test_a_scrape_right_after_the_calls_has_all_of_them_in_counter_and_histogram(
    cumulative: Run,
) -> None:
    by_labels: dict[str, Counter[tuple[tuple[str, str], ...]]] = {}
    for sample in samples(cumulative.page):
        series = tuple(sorted(sample.labels.items()))
        by_labels.setdefault(sample.name, Counter())[series] += int(sample.value)
    counted, timed = by_labels[INVOCATIONS], by_labels[f"{DURATION}_count"]
    assert +counted == +timed
    assert {dict(series)["agent_kernel_status"] for series in +counted} == STATUSES


def test_prometheus_holds_exactly_what_is_on_the_page(scraped: Scraped) -> None:
    _after_work(scraped)
    held = scraped.prometheus.ask("label/__name__/values")
    names = {name for name in held if not name.startswith(_OF_PROMETHEUS)}
    assert names == {sample.name for sample in scraped.app.samples()}


def test_every_series_has_the_value_that_is_on_the_page(scraped: Scraped) -> None:
    _after_work(scraped)
    found = {
        (labels["__name__"], *sorted(_without_target(labels).items())): value
        for labels, value in scraped.prometheus.query('{__name__=~"agent_kernel_.*"}')
        if "telemetry" not in labels["__name__"]  # it goes on
    }
    on_page = {
        (sample.name, *sorted((k, v) for k, v in _number(sample.labels).items() if v)): sample.value
        for sample in scraped.app.samples()
        if sample.name.startswith("agent_kernel_") and "telemetry" not in sample.name
    }
    assert found == on_page


def _without_target(labels: dict[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in labels.items() if k not in {"__name__", "job", "instance"}}
    return _number(kept)


def _number(labels: dict[str, str]) -> dict[str, str]:
    # The edge of a bucket is a number, which is written as 1 or as 1.0.
    return {k: str(float(v)) if k == "le" else v for k, v in labels.items()}


def test_every_metric_has_its_type_and_its_description(scraped: Scraped) -> None:
    _after_work(scraped)
    told = {entry["metric"]: entry for entry in scraped.prometheus.ask("targets/metadata")}
    for metric in semconv.METRICS.values():
        # Prometheus speaks OpenMetrics, where the name of a counter's family lacks its suffix.
        name = metric.prometheus_name.removesuffix("_total")
        entry = told.get(name) or told[metric.prometheus_name]
        assert entry["help"] == metric.description
        assert entry["type"] == {"updowncounter": "gauge"}.get(metric.instrument, metric.instrument)


def test_a_first_failure_is_an_increase(scraped: Scraped) -> None:
    scraped.prometheus.wait_for_scrapes(2)  # of what is there before anything happens
    scraped.app.tell("fail")
    scraped.prometheus.wait_for_scrapes(2)
    failures = f'{INVOCATIONS}{{agent_kernel_status="error"}}'
    increases = scraped.prometheus.query(f"increase({failures}[1m])")
    assert {labels["agent_kernel_capability_id"] for labels, value in increases if value > 0} >= {
        "orders.fail"
    }


def test_how_slow_a_capability_is_can_be_asked(scraped: Scraped) -> None:
    _after_work(scraped)
    of_capability = f"sum by (le, agent_kernel_capability_id) ({DURATION}_bucket)"
    quantiles = scraped.prometheus.query(f"histogram_quantile(0.9, {of_capability})")
    answered = {labels["agent_kernel_capability_id"] for labels, value in quantiles if value > 0}
    assert answered >= {"orders.list", "orders.mail", "orders.fail"}


def test_every_invocation_is_in_the_counter_and_in_the_histogram(scraped: Scraped) -> None:
    _after_work(scraped)
    labels = "agent_kernel_capability_id, agent_kernel_safety_class, agent_kernel_status"
    counted = scraped.prometheus.query(f"sum by ({labels}) ({INVOCATIONS}) > 0")
    timed = scraped.prometheus.query(f"sum by ({labels}) ({DURATION}_count) > 0")
    assert {tuple(sorted(k.items())): v for k, v in counted} == {
        tuple(sorted(k.items())): v for k, v in timed
    }
    by_status: Counter[str] = Counter()
    for series, value in counted:
        by_status[series["agent_kernel_status"]] += int(value)
    assert set(by_status) == STATUSES


def test_the_resource_can_be_joined_by_job_and_instance(scraped: Scraped) -> None:
    _after_work(scraped)
    joined = scraped.prometheus.query(
        f"sum by (service_name) ({INVOCATIONS} * on (job, instance) group_left (service_name) target_info)"
    )
    assert [labels for labels, _ in joined] == [{"service_name": "agent"}]
