# SPDX-License-Identifier: Apache-2.0
"""Destinations that fail, are missing, come late, or are nobody's: nothing is lost silently."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider

from agent_kernel_otel import ExportResult, OTelTraceExporter, replayed_context
from agent_kernel_otel.pipeline.batching import BatchingSpanProcessor
from tests.audit.traces import trace
from tests.support.faulty_collector import FaultyCollector
from tests.support.otlp_sink import OtlpSink

SECRET = "what the exporter was about to say"


class Failing(InMemorySpanExporter):
    """Fails at calls of the given numbers, the first one being 1, and takes the rest."""

    def __init__(self, at: Sequence[int], fault: Exception | None = None) -> None:
        super().__init__()
        self.calls, self.at, self.fault = 0, at, fault

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.calls += 1
        if self.calls not in self.at:
            return super().export(spans)
        if self.fault is not None:
            raise self.fault
        return SpanExportResult.FAILURE


def test_what_an_exporter_does_not_take_is_counted_and_the_rest_is_sent() -> None:
    exporter = Failing(at=[2])
    result = OTelTraceExporter(span_exporter=exporter).export(trace() for _ in range(700))
    assert exporter.calls == 3
    assert result.exported == len(exporter.get_finished_spans()) == 700 - 256
    assert result.failed == 256
    assert result.problems == ("Failing could not send the spans",)


def test_an_exporter_that_raises_is_one_that_fails() -> None:
    exporter = Failing(at=[1], fault=ConnectionError(SECRET))
    result = OTelTraceExporter(span_exporter=exporter).export(trace() for _ in range(300))
    assert result == ExportResult(44, 256, ("sending the spans raised ConnectionError",))
    assert len(exporter.get_finished_spans()) == 44  # and none of those that failed


class Interrupting(InMemorySpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise KeyboardInterrupt


def test_an_interrupt_is_not_taken_for_a_fault() -> None:
    with pytest.raises(KeyboardInterrupt):
        OTelTraceExporter(span_exporter=Interrupting()).export([trace()])


class Raising(SpanProcessor):
    """Somebody else's, which has a fault with each third span."""

    def __init__(self, where: str) -> None:
        self.where, self.calls = where, 0

    def _fail(self, where: str) -> None:
        if where != self.where:
            return
        self.calls += 1
        if self.calls % 3 == 0:
            raise ZeroDivisionError(SECRET)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._fail("on_start")

    def on_end(self, span: ReadableSpan) -> None:
        self._fail("on_end")

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        if self.where == "force_flush":
            raise ZeroDivisionError(SECRET)
        return self.where != "nothing flushed"


@pytest.mark.parametrize("where", ["on_start", "on_end"])
def test_a_processor_that_raises_costs_the_spans_at_which_it_does(where: str) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Raising(where))
    provider.add_span_processor(SimpleSpanProcessor(memory))
    result = OTelTraceExporter(provider).export(trace() for _ in range(300))
    assert result == ExportResult(200, 100, ("a span processor raised ZeroDivisionError",))
    assert len(memory.get_finished_spans()) == 200


def test_a_processor_that_raises_at_each_span_has_nothing_to_flush() -> None:
    processor = Raising("on_start")
    processor.calls = 2
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    assert OTelTraceExporter(provider).export([trace()]).failed == 1


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("force_flush", "sending the spans raised ZeroDivisionError"),
        (
            "nothing flushed",
            "the span processors did not confirm in time that the spans were sent",
        ),
    ],
)
def test_spans_that_nobody_confirms_are_not_said_to_be_exported(where: str, problem: str) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Raising(where))
    result = OTelTraceExporter(provider).export([trace()] * 2)
    assert result == ExportResult(0, 2, (problem,))


def test_after_the_end_of_the_provider_nothing_is_said_to_be_exported() -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(memory))
    exporter = OTelTraceExporter(provider)
    assert exporter.export([trace()]).exported == 1
    provider.shutdown()
    assert exporter.export([trace()]).failed == 1


def test_a_collector_that_refuses_is_told_of_by_our_own_processor() -> None:
    with FaultyCollector("server_error") as collector:
        provider = TracerProvider(shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=collector.endpoint, insecure=True)
        provider.add_span_processor(BatchingSpanProcessor(exporter))
        try:
            result = OTelTraceExporter(provider).export([trace()])
        finally:
            provider.shutdown()
    assert (result.exported, result.failed) == (0, 1)


@pytest.mark.parametrize("kind", [BatchSpanProcessor, SimpleSpanProcessor])
@pytest.mark.parametrize("fault", [None, ConnectionError(SECRET)])
def test_what_the_sdk_s_own_processors_lose_is_told_by_their_exporter_alone(
    kind: Any, fault: Exception | None
) -> None:
    """As the documentation says; when they tell one day, it need not."""
    exporter = Failing(at=range(10), fault=fault)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(kind(exporter))
    assert OTelTraceExporter(provider).export([trace()]) == ExportResult(1, 0)
    provider.shutdown()
    assert OTelTraceExporter(span_exporter=exporter).export([trace()]).failed == 1


def test_records_reach_a_collector_by_an_exporter_alone() -> None:
    records = [trace() for _ in range(300)]
    with OtlpSink() as sink:
        exporter = OTLPSpanExporter(endpoint=sink.endpoint, insecure=True)
        assert OTelTraceExporter(span_exporter=exporter).export(records) == ExportResult(300, 0)
        exporter.shutdown()
        sink.wait_for(lambda received: len(received.spans()) == 300)
        contexts = [replayed_context(record.action_id) for record in records]
        assert {(span.trace_id, span.span_id) for span in sink.spans()} == {
            (f"{context.trace_id:032x}", f"{context.span_id:016x}") for context in contexts
        }


class Asking(InMemorySpanExporter):
    enabled = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.enabled = is_instrumentation_enabled()
        return super().export(spans)


def test_the_requests_of_an_exporter_are_not_instrumented() -> None:
    asking = Asking()
    OTelTraceExporter(span_exporter=asking).export([trace()])
    assert asking.enabled is False
    assert is_instrumentation_enabled()


def test_where_records_come_from_may_fail_after_some_of_them() -> None:
    memory = InMemorySpanExporter()

    def broken() -> Iterator[Any]:
        yield trace()
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        OTelTraceExporter(span_exporter=memory).export(broken())
    assert len(memory.get_finished_spans()) == 1


class Exclusive(InMemorySpanExporter):
    """The SDK promises an exporter that it is never called twice at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = threading.Lock()
        self.broken_promises = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if not self.inside.acquire(blocking=False):
            self.broken_promises += 1
            return SpanExportResult.FAILURE
        try:
            return super().export(spans)
        finally:
            self.inside.release()


def test_threads_take_turns_at_an_exporter() -> None:
    memory = Exclusive()
    exporter = OTelTraceExporter(span_exporter=memory)
    results: list[ExportResult] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(exporter.export(trace() for _ in range(600)))
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [ExportResult(600, 0)] * 6
    assert memory.broken_promises == 0
    assert len({span.context.span_id for span in memory.get_finished_spans() if span.context}) == (
        6 * 600
    )


def test_one_record_is_sent_at_once_where_no_processor_could_keep_it() -> None:
    memory = InMemorySpanExporter()
    OTelTraceExporter(span_exporter=memory).tell(trace())
    assert len(memory.get_finished_spans()) == 1


def test_a_provider_and_an_exporter_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="not both"):
        OTelTraceExporter(
            TracerProvider(shutdown_on_exit=False), span_exporter=InMemorySpanExporter()
        )


class Vendor:
    """A provider that is none of the SDK."""

    def get_tracer(self, *_: Any, **__: Any) -> Any:
        return object()


class Falsy(TracerProvider):
    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        (NoOpTracerProvider(), "no OpenTelemetry SDK is set up"),
        (Vendor(), "test_exporter_faults.Vendor is no tracer provider of the OpenTelemetry SDK"),
    ],
)
def test_a_provider_that_is_none_of_the_sdk_is_one_clear_error(provider: Any, said: str) -> None:
    exporter = OTelTraceExporter(provider)
    with pytest.raises(RuntimeError, match="pass tracer_provider= or span_exporter=") as caught:
        exporter.export([trace()])
    assert said in str(caught.value)
    exporter.tell(trace())  # live, it is nobody's error


def test_a_provider_counts_whatever_its_truth() -> None:
    memory = InMemorySpanExporter()
    provider = Falsy(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    assert OTelTraceExporter(provider).export([trace()]).exported == 1


@pytest.mark.parametrize("given", ["provider", "exporter"])
def test_where_the_sdk_is_disabled_that_is_what_is_said(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "True")
    if given == "provider":
        exporter = OTelTraceExporter(TracerProvider(shutdown_on_exit=False))
    else:
        exporter = OTelTraceExporter(span_exporter=InMemorySpanExporter())
    with pytest.raises(RuntimeError, match="OTEL_SDK_DISABLED"):
        exporter.export([trace()])
    exporter.tell(trace())
