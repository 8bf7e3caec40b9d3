# SPDX-License-Identifier: Apache-2.0
"""Records in hand, through the providers, processors and exporters that apps have."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import (
    ConcurrentMultiSpanProcessor,
    ReadableSpan,
    Span,
    SpanLimits,
    SpanProcessor,
    TracerProvider,
)
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, TraceIdRatioBased
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from agent_kernel_otel import ExportResult, OTelTraceExporter, replayed_context, semconv
from agent_kernel_otel.audit.exporter import MOST_PROBLEMS
from agent_kernel_otel.audit.files import UnreadableRecord
from agent_kernel_otel.correlation import correlations
from agent_kernel_otel.pipeline.batching import BatchingSpanProcessor
from tests.audit.traces import NANOSECONDS, trace, values
from tests.support.capture import Capture


def ids(spans: Sequence[ReadableSpan]) -> list[tuple[int, int]]:
    return [(s.context.trace_id, s.context.span_id) for s in spans if s.context is not None]


def expected_ids(records: Sequence[Any]) -> list[tuple[int, int]]:
    contexts = [replayed_context(record.action_id) for record in records]
    return [(context.trace_id, context.span_id) for context in contexts]


def provider_of(*processors: SpanProcessor, **options: Any) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False, **options)
    for processor in processors:
        provider.add_span_processor(processor)
    return provider


def test_a_record_becomes_one_span_of_hardly_any_length_at_its_own_time() -> None:
    capture = Capture()
    record = trace()
    result = OTelTraceExporter(capture.tracer_provider).export([record])
    assert result == ExportResult(exported=1, failed=0)
    (span,) = capture.spans()
    assert ids([span]) == expected_ids([record])
    assert (span.start_time, span.end_time) == (NANOSECONDS, NANOSECONDS + 1)
    assert span.parent is None
    assert span.kind is SpanKind.INTERNAL
    assert not span.links
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == semconv.SCOPE_WEAVER
    assert (span.attributes or {})[semconv.REPLAYED] is True
    capture.check()


def test_a_file_full_of_faults_gives_some_problems_and_counts_all_of_them() -> None:
    faulty = [UnreadableRecord(f"line {number}", "it is not JSON") for number in range(1000)]
    result = OTelTraceExporter(Capture().tracer_provider).export([trace(), *faulty])
    assert (result.exported, result.failed) == (1, 1000)
    assert len(result.problems) == MOST_PROBLEMS
    assert result.problems[0] == "a record cannot be read: line 0: it is not JSON"


def test_the_status_of_a_span_is_that_of_its_record() -> None:
    capture = Capture()
    OTelTraceExporter(capture.tracer_provider).export(
        [
            trace(),
            trace(error="boom"),
            trace(error="invocation cancelled"),
            trace(event_type="deny", error="no", reason_code="missing_role"),
        ]
    )
    assert [
        (span.status.status_code.name, span.status.description) for span in capture.spans()
    ] == [
        ("UNSET", None),
        ("ERROR", None),
        ("UNSET", None),
        ("ERROR", None),
    ]
    capture.check()


def test_a_time_at_the_beginning_of_the_epoch_is_kept() -> None:
    exporter = InMemorySpanExporter()
    OTelTraceExporter(span_exporter=exporter).export([values(invoked_at="1970-01-01T00:00:00Z")])
    (span,) = exporter.get_finished_spans()
    assert (span.start_time, span.end_time) == (0, 1)


def test_exporting_twice_and_by_another_exporter_gives_the_same_spans() -> None:
    records = [trace() for _ in range(5)]
    one, other = InMemorySpanExporter(), InMemorySpanExporter()
    exporter = OTelTraceExporter(span_exporter=one)
    exporter.export(records)
    exporter.export(iter(records))
    OTelTraceExporter(provider_of(SimpleSpanProcessor(other))).export(records)
    first, again = one.get_finished_spans()[:5], one.get_finished_spans()[5:]
    assert ids(first) == ids(again) == ids(other.get_finished_spans()) == expected_ids(records)
    assert [s.attributes for s in first] == [s.attributes for s in other.get_finished_spans()]


def test_garbage_among_records_is_counted_and_the_rest_is_exported() -> None:
    capture = Capture()
    good = [trace(), trace()]
    result = OTelTraceExporter(capture.tracer_provider).export(
        [None, good[0], {}, "text", good[1], values(event_type="revoke"), values(invoked_at="x")]
    )
    assert result == ExportResult(
        2,
        5,
        (
            "a record cannot be read: it has no action_id",
            (
                "a record cannot be read: its event_type is none of invoke, expand, deny; a newer "
                "agent-kernel-otel may know it"
            ),
            "a record cannot be read: its invoked_at is no ISO 8601 time",
        ),
    )
    assert ids(capture.spans()) == expected_ids(good)


def test_no_records_are_no_failure() -> None:
    capture = Capture()
    assert OTelTraceExporter(capture.tracer_provider).export([]) == ExportResult(0, 0)


def test_it_links_to_the_live_span_where_that_is_known() -> None:
    capture = Capture()
    record = trace()
    live = SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    correlations.remember(record.action_id, live)
    OTelTraceExporter(capture.tracer_provider).export([record, trace()])
    linked, unlinked = capture.spans()
    assert [link.context for link in linked.links] == [live]
    assert not unlinked.links


def test_what_is_current_has_nothing_to_do_with_a_replayed_span() -> None:
    capture = Capture()
    with capture.tracer_provider.get_tracer("app").start_as_current_span("app"):
        OTelTraceExporter(capture.tracer_provider).export([trace()])
    replayed = capture.root("agent_kernel.invoke")
    assert replayed.span.parent is None


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, TraceIdRatioBased(0.0)], ids=["off", "ratio"])
def test_an_audit_trail_is_exported_whatever_the_app_samples(sampler: Any) -> None:
    capture = Capture(sampler)
    assert OTelTraceExporter(capture.tracer_provider).export([trace()] * 3).exported == 3
    assert len(capture.spans()) == 3
    capture.tracer_provider.get_tracer("app").start_span("the app's").end()
    assert len(capture.spans()) == 3  # its sampler goes on to hold for the rest


def test_neither_the_environments_sampler_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    exporter = InMemorySpanExporter()
    OTelTraceExporter(span_exporter=exporter).export([trace()])
    OTelTraceExporter(provider_of(SimpleSpanProcessor(exporter))).export([trace()])
    assert len(exporter.get_finished_spans()) == 2


def test_the_apps_resource_and_limits_hold() -> None:
    exporter = InMemorySpanExporter()
    provider = provider_of(
        SimpleSpanProcessor(exporter),
        resource=Resource({"service.name": "agent"}),
        span_limits=SpanLimits(max_attribute_length=4),
    )
    OTelTraceExporter(provider).export([trace()])
    (span,) = exporter.get_finished_spans()
    assert span.resource is provider.resource
    assert (span.attributes or {})[semconv.CAPABILITY_ID] == "task"


class Watching(SpanProcessor):
    """A processor of the app's that adds to spans and takes note of them."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.flushed = 0

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.seen.append(f"start {span.name}")
        span.set_attribute("app.tenant", "acme")

    def on_end(self, span: ReadableSpan) -> None:
        self.seen.append(f"end {span.name}")

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        self.flushed += 1
        return True


@pytest.mark.parametrize("multi", [None, ConcurrentMultiSpanProcessor])
def test_the_apps_processors_see_each_span(multi: Any) -> None:
    watching, exporter = Watching(), InMemorySpanExporter()
    provider = provider_of(
        watching,
        SimpleSpanProcessor(exporter),
        active_span_processor=None if multi is None else multi(2),
    )
    OTelTraceExporter(provider).export([trace(), trace(event_type="expand")])
    assert watching.seen == [
        "start agent_kernel.invoke", "end agent_kernel.invoke",
        "start agent_kernel.expand", "end agent_kernel.expand",
    ]  # fmt: skip
    assert watching.flushed == 1
    for span in exporter.get_finished_spans():
        assert (span.attributes or {})["app.tenant"] == "acme"


def test_a_processor_that_is_added_late_sees_the_next_ones() -> None:
    provider = provider_of()
    exporter = OTelTraceExporter(provider)
    exporter.export([trace()])
    late = Watching()
    provider.add_span_processor(late)
    exporter.export([trace()])
    assert len(late.seen) == 2


def test_no_metric_counts_what_is_replayed() -> None:
    capture = Capture()
    from agent_kernel_otel import KernelInstrumentor, stats

    KernelInstrumentor().instrument(**capture.providers)
    try:
        before = stats.snapshot()
        OTelTraceExporter(capture.tracer_provider).export(
            [trace(), trace(error="boom"), trace(event_type="deny", error="no")]
        )
        assert stats.snapshot() == before
        for metric in capture.metrics():
            if metric.name != "agent_kernel.info":
                assert not any(getattr(p, "value", 0) for p in metric.data.data_points), metric.name
    finally:
        KernelInstrumentor().uninstrument()


QUEUES: dict[str, Callable[[SpanExporter, int], SpanProcessor]] = {
    "the SDK's": lambda exporter, size: BatchSpanProcessor(
        exporter, max_queue_size=size, max_export_batch_size=min(size, 512)
    ),
    "ours": lambda exporter, size: BatchingSpanProcessor(
        exporter, max_queue_size=size, max_export_batch_size=min(size, 512)
    ),
}


@pytest.mark.parametrize("size", [2048, 512, 100, 2, 1])
@pytest.mark.parametrize("queue", QUEUES)
def test_no_queue_drops_one(queue: str, size: int) -> None:
    exporter = InMemorySpanExporter()
    number = 10_000 if size > 100 else 500
    records = [trace() for _ in range(number)]
    provider = provider_of(QUEUES[queue](exporter, size))
    try:
        result = OTelTraceExporter(provider).export(record for record in records)
        assert result == ExportResult(number, 0)
        assert sorted(ids(exporter.get_finished_spans())) == sorted(expected_ids(records))
    finally:
        provider.shutdown()


def test_threads_share_an_exporter_and_the_queues_behind_it() -> None:
    memory = InMemorySpanExporter()
    provider = provider_of(BatchSpanProcessor(memory, max_queue_size=600))
    exporter = OTelTraceExporter(provider)
    records = [[trace() for _ in range(700)] for _ in range(8)]
    results: list[ExportResult] = []
    threads = [
        threading.Thread(target=lambda part=part: results.append(exporter.export(part)))
        for part in records
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    provider.shutdown()
    assert results == [ExportResult(700, 0)] * 8
    assert sorted(ids(memory.get_finished_spans())) == sorted(
        expected_ids([record for part in records for record in part])
    )
