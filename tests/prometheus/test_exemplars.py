# SPDX-License-Identifier: Apache-2.0
"""Points of histograms lead to a trace that shows such a call, on the path that can carry that.

By OTLP they do. OpenTelemetry's exporter for Prometheus writes none on ``/metrics``, in no format.
"""

from __future__ import annotations

from typing import Any

import pytest

from agent_kernel_otel import semconv
from tests.prometheus.conftest import Run, Scraped
from tests.support.otlp_records import attributes

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
HISTOGRAMS = [metric for metric in semconv.METRICS.values() if metric.instrument == "histogram"]


def _exemplars(run: Run, metric: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each with the attributes of its point."""
    return [
        (attributes(point), exemplar)
        for item in run.metrics
        if item.name == metric
        for point in item.points
        for exemplar in point.get("exemplars", [])
    ]


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_an_exemplar_of_a_duration_is_the_span_of_such_an_invocation(
    temporality: str, request: pytest.FixtureRequest
) -> None:
    run: Run = request.getfixturevalue(temporality)
    spans = {(span.trace_id, span.span_id): span for span in run.spans}
    exemplars = _exemplars(run, semconv.INVOCATION_DURATION.name)
    statuses = set()
    for labels, exemplar in exemplars:
        span = spans[exemplar["traceId"], exemplar["spanId"]]
        assert span.name == "agent_kernel.invoke"
        for key in (semconv.CAPABILITY_ID, semconv.STATUS):
            assert span.attributes[key] == labels[key]
        statuses.add(labels[semconv.STATUS])
    assert statuses == {"success", "error", "denied", "cancelled"}


@pytest.mark.parametrize("metric", HISTOGRAMS, ids=lambda metric: metric.name)
def test_every_histogram_has_exemplars_and_their_spans_were_exported(
    metric: semconv.MetricDefinition, cumulative: Run
) -> None:
    exemplars = _exemplars(cumulative, metric.name)
    assert exemplars
    assert {(one["traceId"], one["spanId"]) for _, one in exemplars} <= {
        (span.trace_id, span.span_id) for span in cumulative.spans
    }


def test_an_exemplar_has_no_attributes_of_its_own(cumulative: Run) -> None:
    for metric in HISTOGRAMS:
        for _, exemplar in _exemplars(cumulative, metric.name):
            assert "filteredAttributes" not in exemplar


def test_the_page_carries_none_in_either_format(scraped: Scraped) -> None:
    assert scraped.app.tell("everything") == "done", scraped.app.errors()
    for page in (scraped.app.scrape(), scraped.app.scrape(Accept=OPEN_METRICS)):
        assert "trace_id" not in page
        assert not [line for line in page.splitlines() if " # " in line and line[0] != "#"]
    scraped.prometheus.wait_for_scrapes(2)
    query = '{__name__=~".+_bucket"}'
    assert scraped.prometheus.ask("query_exemplars", query=query, start="0", end="9e9") == []
