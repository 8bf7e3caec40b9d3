# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from agent_kernel_otel import semconv
from agent_kernel_otel.console import otlp_json, wire
from agent_kernel_otel.console.schema import StoreError
from agent_kernel_otel.console.store import Store
from tests.console.harness import Span, logs_json, span, traces_request

TRACE = bytes.fromhex("11" * 16)


def add_spans(store: Store, *spans: Span) -> None:
    request = traces_request(*spans)
    store.add(wire.TRACES, request, request.SerializeToString())


def add_logs(store: Store, *records: dict[str, Any]) -> None:
    request = otlp_json.decode(wire.LOGS.request, _json(logs_json(*records)))
    store.add(wire.LOGS, request, request.SerializeToString())


def _json(fields: dict[str, Any]) -> bytes:
    import json

    return json.dumps(fields).encode()


def numbered(number: int) -> Span:
    return span("work", trace_id=f"{number + 1:032x}", span_id=f"{number + 1:016x}")


def test_a_trace_is_put_together_from_several_requests() -> None:
    store = Store()
    add_spans(store, span("child", span_id="02" * 8, parent_id="01" * 8))
    add_spans(store, span("root"), span("other", trace_id="22" * 16))
    trace = store.trace(TRACE)
    assert [(item.span.name, item.batch) for item in trace.spans] == [("child", 1), ("root", 2)]
    store.close()


def test_what_is_new_is_told_by_request_number() -> None:
    store = Store()
    add_spans(store, span("child", parent_id="02" * 8))
    add_spans(store, span("root", trace_id="22" * 16))
    add_logs(store, {"traceId": "33" * 16, "spanId": "01" * 8}, {"body": {"stringValue": "x"}})
    told = [(change.trace_id.hex()[:2], change.has_root) for change in store.changed_traces(0, 3)]
    assert told == [("11", False), ("22", True), ("33", False)]
    assert [change.trace_id.hex()[:2] for change in store.changed_traces(1, 2)] == ["22"]
    assert len(store.logs_without_trace(0, 3)) == 1
    assert store.logs_without_trace(3, 3) == []
    store.close()


def test_a_reader_is_woken_by_a_request() -> None:
    store = Store()
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.append(store.wait_for_change(0, 30)))
    reader.start()
    add_spans(store, span("work"))
    reader.join(30)
    assert seen == [1]
    store.close()


def test_a_span_sent_twice_is_there_once() -> None:
    store = Store()
    add_spans(store, span("work"))
    add_spans(store, span("work"))
    assert len(store.trace(TRACE).spans) == 1
    store.close()


def test_the_oldest_requests_are_evicted_whole_and_counted() -> None:
    store = Store(max_spans=10)
    for first in range(0, 24, 4):
        add_spans(store, *(numbered(first + offset) for offset in range(4)))
    counters = store.counters
    assert (counters.spans, counters.evicted_spans) == (24, 16)
    kept = [n for n in range(24) if store.trace((n + 1).to_bytes(16, "big")).spans]
    assert kept == list(range(16, 24))
    assert len(store.changed_traces(0, store.last_batch)) == 8
    store.close()


def test_the_newest_request_stays_whole_even_past_the_limit() -> None:
    store = Store(max_spans=2)
    add_spans(store, *(numbered(n) for n in range(5)))
    assert len(store.changed_traces(0, 1)) == 5
    store.close()


def test_bytes_are_bounded_whatever_a_span_holds() -> None:
    import random

    random_text = random.Random(0)
    store = Store(max_bytes=500_000)
    for number in range(20):
        text = "".join(chr(random_text.randrange(32, 50_000)) for _ in range(50_000))
        add_spans(store, {**numbered(number), "name": text})
    size = sum(len(row[0]) for row in store._all("SELECT payload FROM batches"))
    assert size <= 500_000
    assert store.counters.evicted_spans > 10
    store.close()


def test_log_records_are_bounded_too() -> None:
    store = Store(max_spans=5)
    for _ in range(4):
        add_logs(store, *({"traceId": "11" * 16} for _ in range(3)))
    assert store.counters.evicted_logs == 9
    assert len(store.trace(TRACE).logs) == 3
    store.close()


def test_memory_stays_flat_once_the_limit_is_reached() -> None:
    store = Store(max_spans=2_000)
    pages = []
    for number in range(60):
        add_spans(store, *(numbered(number * 200 + offset) for offset in range(200)))
        pages.append(store._one("PRAGMA page_count"))
    assert pages[-1] <= pages[15] * 1.05
    store.close()


def test_what_happened_is_counted_once_per_operation() -> None:
    store = Store()
    denied = {semconv.CAPABILITY_ID: "a", semconv.STATUS: "denied", semconv.REASON_CODE: "no"}
    add_spans(
        store,
        span(semconv.GRANT, attributes=denied, status=2),
        span(
            semconv.POLICY,
            span_id="02" * 8,
            attributes={semconv.POLICY_OUTCOME: "denied", semconv.REASON_CODE: "no"},
        ),
        span(
            semconv.INVOKE,
            span_id="03" * 8,
            attributes={
                semconv.CAPABILITY_ID: "b",
                semconv.STATUS: "success",
                semconv.FALLBACK: True,
                semconv.REDACTIONS: 3,
            },
        ),
        span(semconv.FIREWALL, span_id="04" * 8, attributes={semconv.REDACTIONS: 3}),
        span("web", span_id="05" * 8, status=2),
    )
    counters = store.counters
    assert (counters.denied, counters.errors) == (1, 1)
    assert (counters.fallbacks, counters.redactions) == (1, 3)
    assert store.denials(after=0) == [("no", "a", 1)]
    store.close()


def test_times_past_what_sqlite_can_hold_are_taken() -> None:
    store = Store()
    add_spans(store, span("far future", start=2**64 - 1, end=2**64 - 1))
    assert store.trace(TRACE).spans[0].span.end_time_unix_nano == 2**64 - 1
    store.close()


# Files ----------------------------------------------------------------------------------------


def test_a_file_is_there_again_when_it_is_reopened(tmp_path: Path) -> None:
    file = str(tmp_path / "telemetry.db")
    store = Store(file, max_spans=10)
    add_spans(store, *(numbered(n) for n in range(6)))
    add_metrics(store, counter(5))
    store.close()
    reopened = Store(file, max_spans=10)
    assert reopened.last_batch == 2
    assert reopened.trace((1).to_bytes(16, "big")).spans[0].span.name == "work"
    assert [series.point.as_int for series in reopened.metric_series()] == [5]
    add_spans(reopened, *(numbered(n) for n in range(6, 12)))
    assert reopened.counters.evicted_spans == 6
    reopened.close()


def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "telemetry.db"
    Store(str(file)).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_sqlite_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "audit.db"
    other = sqlite3.connect(file)
    other.execute("CREATE TABLE audit (id)")
    other.commit()
    other.close()
    before = file.read_bytes()
    with pytest.raises(StoreError, match="something else"):
        Store(str(file))
    assert file.read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but long enough to look like one " * 50)
    with pytest.raises(StoreError, match=r"notes\.txt.*not a database"):
        Store(str(file))
    assert file.read_text().startswith("not a database")


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no/such/folder.*No such file"):
        Store(str(tmp_path / "no/such/folder/x.db"))


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    file = str(tmp_path / "telemetry.db")
    Store(file).close()
    newer = sqlite3.connect(file)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StoreError, match="format is 99"):
        Store(file)


# Metrics --------------------------------------------------------------------------------------

DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


def add_metrics(store: Store, request: ExportMetricsServiceRequest) -> None:
    store.add(wire.METRICS, request, request.SerializeToString())


def new_metric(request: ExportMetricsServiceRequest, name: str) -> Any:
    return request.resource_metrics.add().scope_metrics.add().metrics.add(name=name)


def counter(
    value: int, temporality: int = CUMULATIVE, name: str = "calls", label: str = "x"
) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    metric = new_metric(request, name)
    metric.sum.aggregation_temporality = temporality
    metric.sum.is_monotonic = True
    point = metric.sum.data_points.add(as_int=value)
    point.attributes.add(key="label").value.string_value = label
    return request


def histogram(counts: list[int], total: float, temporality: int) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    metric = new_metric(request, "durations")
    metric.histogram.aggregation_temporality = temporality
    metric.histogram.data_points.add(
        count=sum(counts), sum=total, bucket_counts=counts, explicit_bounds=[10.0], min=1, max=20
    )
    return request


def test_of_a_cumulative_counter_the_latest_value_counts() -> None:
    store = Store()
    add_metrics(store, counter(5))
    add_metrics(store, counter(7))
    assert [series.point.as_int for series in store.metric_series()] == [7]
    store.close()


def test_deltas_are_added_up() -> None:
    store = Store()
    for value in (5, 7):
        add_metrics(store, counter(value, DELTA))
        add_metrics(store, histogram([1, 2], 30.0, DELTA))
    calls, durations = store.metric_series()
    assert calls.point.as_int == 12
    assert (durations.point.count, durations.point.sum) == (6, 60.0)
    assert list(durations.point.bucket_counts) == [2, 4]
    store.close()


def test_deltas_past_64_bits_do_not_stop_the_store() -> None:
    store = Store()
    for _ in range(2):
        add_metrics(store, counter(2**63 - 1, DELTA))
        add_metrics(store, histogram([2**63, 2**62], 1e308, DELTA))
    assert store.metric_series()[0].point.as_int == 2**63 - 1
    store.close()


def test_series_are_told_apart_by_attributes_and_resource() -> None:
    store = Store()
    add_metrics(store, counter(1, label="a"))
    add_metrics(store, counter(2, label="b"))
    other = counter(3, label="a")
    other.resource_metrics[0].resource.attributes.add(key="service.name").value.string_value = "s"
    add_metrics(store, other)
    assert sorted(series.point.as_int for series in store.metric_series()) == [1, 2, 3]
    store.close()


def test_series_are_bounded_and_the_longest_silent_go_first() -> None:
    store = Store(max_series=10)
    add_metrics(store, counter(1, label="kept alive"))
    for number in range(30):
        add_metrics(store, counter(1, label=str(number)))
        add_metrics(store, counter(number, label="kept alive"))
    labels = {
        series.point.attributes[0].value.string_value: series.point.as_int
        for series in store.metric_series()
    }
    assert len(labels) == 10
    assert labels["kept alive"] == 29
    assert "0" not in labels
    assert store.counters.evicted_series == 21
    store.close()
