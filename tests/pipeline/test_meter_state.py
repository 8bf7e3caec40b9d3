# SPDX-License-Identifier: Apache-2.0
"""Metric memory is bounded on every SDK, and a forked child has none of its parent's values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from agent_kernel_otel.distro import assembly
from agent_kernel_otel.pipeline import meter_state
from agent_kernel_otel.pipeline.lifecycle import Lifecycle


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[MeterProvider, Any]]:
    """A provider as the distro makes it, with a reader."""
    monkeypatch.setattr(assembly, "lifecycle", Lifecycle())
    reader = InMemoryMetricReader()
    made = assembly.SUBSTITUTES["MeterProvider"](metric_readers=[reader])
    yield made, reader
    made.shutdown()


def points(reader: Any, name: str) -> list[Any]:
    data = reader.get_metrics_data()
    return [
        point
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


def test_past_the_limit_all_attribute_sets_share_one_point_and_none_is_lost(
    provider: tuple[MeterProvider, Any],
) -> None:
    made, reader = provider
    counter = made.get_meter("test").create_counter("calls")
    for _ in range(2):
        for number in range(meter_state.SERIES_LIMIT + 500):
            counter.add(1, {"user": f"u{number}"})
    collected = points(reader, "calls")
    assert len(collected) == meter_state.SERIES_LIMIT + 1
    assert sum(point.value for point in collected) == 2 * (meter_state.SERIES_LIMIT + 500)
    (rest,) = [point for point in collected if dict(point.attributes) == meter_state.OVERFLOW]
    assert rest.value == 1000


def test_histograms_and_observed_values_are_limited_too(
    provider: tuple[MeterProvider, Any],
) -> None:
    made, reader = provider
    many = meter_state.SERIES_LIMIT + 20
    meter = made.get_meter("test")
    histogram = meter.create_histogram("took")
    meter.create_observable_gauge(
        "seen", callbacks=[lambda _: [Observation(n, {"n": n}) for n in range(many)]]
    )
    for number in range(many):
        histogram.record(1.0, {"user": f"u{number}"})
    took = points(reader, "took")
    assert len(took) == meter_state.SERIES_LIMIT + 1
    assert sum(point.count for point in took) == many
    assert len(points(reader, "seen")) == meter_state.SERIES_LIMIT + 1


def test_the_buckets_that_an_instrument_advises_are_kept(
    provider: tuple[MeterProvider, Any],
) -> None:
    made, reader = provider
    advised = made.get_meter("test").create_histogram(
        "took", explicit_bucket_boundaries_advisory=[1.0, 2.0]
    )
    advised.record(1.5)
    (point,) = points(reader, "took")
    assert point.explicit_bounds == (1.0, 2.0)


def test_a_view_of_the_users_is_not_doubled_by_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.sdk.metrics.view import View

    monkeypatch.setattr(assembly, "lifecycle", Lifecycle())
    reader = InMemoryMetricReader()
    made = assembly.SUBSTITUTES["MeterProvider"](
        metric_readers=[reader], views=[View(instrument_name="calls", name="renamed")]
    )
    made.get_meter("test").create_counter("calls").add(1)
    assert points(reader, "calls") == []
    made.shutdown()


def test_a_forked_child_counts_from_nothing(provider: tuple[MeterProvider, Any]) -> None:
    made, reader = provider
    meter = made.get_meter("test")
    counter = meter.create_counter("calls")
    active = meter.create_up_down_counter("active")
    took = meter.create_histogram("took")
    counter.add(100)
    active.add(5)
    took.record(1.0)
    points(reader, "calls")
    meter_state.forget_measurements(made)
    counter.add(1)
    data = {
        metric.name: metric.data.data_points
        for scope in reader.get_metrics_data().resource_metrics[0].scope_metrics
        for metric in scope.metrics
    }
    assert [point.value for point in data["calls"]] == [1]
    assert "active" not in data
    assert "took" not in data


def test_what_was_sent_and_lost_is_a_metric_of_the_distros_own(
    provider: tuple[MeterProvider, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent_kernel_otel.pipeline import own_metrics
    from agent_kernel_otel.pipeline.ledger import Ledger

    books = Ledger()
    monkeypatch.setattr(own_metrics, "ledger", books)
    account = books.open("traces")
    for _ in range(10):
        account.end_one()
    account.settle(sent=5, refused=2, unanswered=1)
    account.crowd_one_out()
    _, reader = provider
    (sent,) = points(reader, "agent_kernel.telemetry_sent")
    assert (sent.value, dict(sent.attributes)) == (5, {"agent_kernel.signal": "traces"})
    dropped = {
        point.attributes["agent_kernel.drop_reason"]: point.value
        for point in points(reader, "agent_kernel.telemetry_dropped")
    }
    assert dropped == {"refused": 2, "unanswered": 1, "queue_full": 1}
