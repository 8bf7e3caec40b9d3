# SPDX-License-Identifier: Apache-2.0
"""What metrics are called on the wire, on ``/metrics`` and by OTLP, is what the reference says.

The golden files hold names, types, label keys and bucket edges as they leave the process: what a
dashboard or an alert is written against. ``pytest tests/prometheus --update-golden`` writes them.
"""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from agent_kernel_otel import semconv
from agent_kernel_otel.semconv.definitions import MetricDefinition
from tests.prometheus import shapes
from tests.prometheus.conftest import Compare, Run
from tests.prometheus.server import program

METRICS = list(semconv.METRICS.values())
BY_DEFAULT = [metric for metric in METRICS if metric.level == "info"]
_TYPES = {"counter": "counter", "updowncounter": "gauge", "gauge": "gauge"}
_KINDS = {"counter": "sum", "updowncounter": "sum", "gauge": "gauge"}


def _keys(metric: MetricDefinition) -> set[str]:
    return {*metric.attributes, *([semconv.SYSTEM] if metric.of_kernel else [])}


def _labels(metric: MetricDefinition) -> list[str]:
    return sorted(key.replace(".", "_") for key in _keys(metric))


def test_the_page_is_the_golden_one(cumulative: Run, equals_golden: Compare) -> None:
    equals_golden("page", shapes.of_page(cumulative.page))


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_otlp_is_the_golden_one(
    temporality: str, equals_golden: Compare, request: pytest.FixtureRequest
) -> None:
    run: Run = request.getfixturevalue(temporality)
    equals_golden(f"otlp_{temporality}", shapes.of_otlp(run.metrics))


def test_the_page_is_cumulative_and_the_same_whatever_otlp_is_sent(
    cumulative: Run, delta: Run
) -> None:
    assert shapes.of_page(delta.page) == shapes.of_page(cumulative.page)


def test_every_series_of_the_page_is_named_by_the_reference(
    cumulative: Run, by_default: Run
) -> None:
    for run, metrics in ((cumulative, METRICS), (by_default, BY_DEFAULT)):
        names = set(shapes.of_page(run.page))
        assert names == {metric.prometheus_name for metric in metrics}


def test_every_metric_of_otlp_is_named_by_the_reference(cumulative: Run, by_default: Run) -> None:
    for run, metrics in ((cumulative, METRICS), (by_default, BY_DEFAULT)):
        assert {metric.name for metric in run.metrics} == {metric.name for metric in metrics}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_on_the_page_is_as_the_reference_says(
    metric: MetricDefinition, cumulative: Run
) -> None:
    shape = shapes.of_page(cumulative.page)[metric.prometheus_name]
    assert shape["type"] == _TYPES.get(metric.instrument, "histogram")
    assert shape["labels"] == _labels(metric)
    if metric.bounds:
        assert [float(edge) for edge in shape["le"]] == [*metric.bounds, float("inf")]
    else:
        assert shape["samples"] == [metric.prometheus_name]


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_of_otlp_is_as_the_reference_says(
    metric: MetricDefinition, temporality: str, request: pytest.FixtureRequest
) -> None:
    run: Run = request.getfixturevalue(temporality)
    expected: dict[str, Any] = {
        "unit": metric.unit,
        "kind": _KINDS.get(metric.instrument, "histogram"),
        "attributes": sorted(_keys(metric)),
    }
    if metric.instrument in {"counter", "updowncounter"}:
        expected["monotonic"] = metric.instrument == "counter"
    if metric.bounds:
        expected["bounds"] = list(metric.bounds)
    if metric.instrument != "gauge":
        # What goes up and down is cumulative always, as OpenTelemetry has it.
        kept = metric.instrument == "updowncounter"
        expected["temporality"] = "cumulative" if kept else temporality
    shape = shapes.of_otlp(run.metrics)[metric.name]
    assert {key: shape[key] for key in shape if key != "scope"} == expected
    assert {item.raw["description"] for item in run.metrics if item.name == metric.name} == {
        metric.description
    }


def test_promtool_says_nothing_but_that_durations_are_in_milliseconds(cumulative: Run) -> None:
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=cumulative.page,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.stdout == ""
    assert set(checked.stderr.splitlines()) == {
        f'{metric.prometheus_name} use base unit "seconds" instead of "milliseconds"'
        for metric in METRICS
        if metric.unit == "ms"
    }


def test_nothing_is_said_by_the_app(cumulative: Run, delta: Run, by_default: Run) -> None:
    # The trace stores of the agent have their say.
    for run in (cumulative, delta, by_default):
        assert [line for line in run.errors if "telemetry" in line or "OTEL_" in line] == []
