# SPDX-License-Identifier: Apache-2.0
"""Where the telemetry of a simulated process goes, and providers that fail as real ones do."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator

from tests.simulation.journal import current

Points = dict[tuple[str, tuple[tuple[str, Any], ...]], Any]
"""Data points by the name of their metric and their attributes."""


NOT_COUNTERS = frozenset(
    f"agent_kernel.{name}"
    for name in ("invocations_active", "budget_consumed", "budget_limit", "memory_usage",
                 "handles_active", "info")
)  # fmt: skip
"""Metrics whose values may fall."""


class SeededIds(IdGenerator):
    """Ids that a seed decides, never those of the application's own spans."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def generate_span_id(self) -> int:
        return self._rng.getrandbits(63) | 1 << 63

    def generate_trace_id(self) -> int:
        return self._rng.getrandbits(127) | 1 << 127


class Recorder(SpanProcessor):
    """Keeps spans by the operation that they are of, and watches that each ends once.

    Attributes:
        ended: The ended spans, by the number of the operation.
        in_order: The same in the order in which they ended.
        open: Spans that were started and did not end, by id.
        complaints: What should not have come to pass.
    """

    def __init__(self) -> None:
        self.ended: defaultdict[int, list[ReadableSpan]] = defaultdict(list)
        self.open: dict[int, str] = {}
        self.complaints: list[str] = []
        self.in_order: list[ReadableSpan] = []
        self._operation_of: dict[int, int] = {}

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        context = span.get_span_context()
        self.open[context.span_id] = span.name
        if span.parent is None:
            run = current.get()
            number = -1 if run is None else run.op.number
            self._operation_of[context.trace_id] = number

    def on_end(self, span: ReadableSpan) -> None:
        assert span.context is not None
        if self.open.pop(span.context.span_id, None) is None:
            self.complaints.append(
                f"{span.name} of operation {self.operation_of(span)} ended twice"
            )
        self.ended[self.operation_of(span)].append(span)
        self.in_order.append(span)

    def operation_of(self, span: ReadableSpan) -> int:
        """The number of the operation that a span belongs to."""
        assert span.context is not None
        trace_id: int = span.context.trace_id
        return self._operation_of.get(trace_id, trace_id)


class RaisingProcessor(SpanProcessor):
    """A processor of the application's that fails for the operations of the plan.

    Attributes:
        raised: How often it did.
    """

    def __init__(self) -> None:
        self.raised = 0

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        self._raise_if("processor_refuses")

    def on_end(self, span: ReadableSpan) -> None:
        self._raise_if("processor_raises")

    def _raise_if(self, chance: str) -> None:
        run = current.get()
        if run is not None and chance in run.op.chances:
            self.raised += 1
            raise RuntimeError("the processor failed")


class _AtStart(SpanProcessor):
    """The first processor, whose failure the others do not see."""

    def __init__(self, raising: RaisingProcessor) -> None:
        self._raising = raising

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        self._raising.on_start(span, parent_context)


class _AtEnd(SpanProcessor):
    """The last one."""

    def __init__(self, raising: RaisingProcessor) -> None:
        self._raising = raising

    def on_end(self, span: ReadableSpan) -> None:
        self._raising.on_end(span)


class FailingSpanExporter(SpanExporter):
    """Fails in each of the ways in which an exporter can."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def export(self, spans: Any) -> SpanExportResult:
        roll = self._rng.random()
        if roll < 0.2:
            raise ConnectionError("the collector is down")
        return SpanExportResult.FAILURE if roll < 0.4 else SpanExportResult.SUCCESS


class FailingMetricExporter(MetricExporter):
    """The same for metrics."""

    def __init__(self, rng: random.Random, temporality: AggregationTemporality) -> None:
        super().__init__()
        self.preferred_temporality = temporality
        self._rng = rng

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        roll = self._rng.random()
        if roll < 0.2:
            raise ConnectionError("the collector is down")
        return MetricExportResult.FAILURE if roll < 0.4 else MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing to let go of."""


class PatientReader(InMemoryMetricReader):
    """Never gives up: the SDK takes deadlines from the wall clock, which jumps here."""

    def get_metrics_data(self) -> MetricsData | None:
        with self._lock:
            self.collect(timeout_millis=1e15)
            data, self._metrics_data = self._metrics_data, None
        return data


class Capture:
    """Providers of one simulated process.

    Args:
        rng: Where ids come from, and which exports fail.
    """

    def __init__(self, rng: random.Random) -> None:
        resource = Resource({"service.name": "simulation"})
        self.recorder = Recorder()
        self.tracer_provider = TracerProvider(
            resource=resource, id_generator=SeededIds(rng), shutdown_on_exit=False
        )
        self.raising = RaisingProcessor()
        self.tracer_provider.add_span_processor(_AtStart(self.raising))
        self.tracer_provider.add_span_processor(self.recorder)
        failing = FailingSpanExporter(random.Random(rng.getrandbits(64)))
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(failing))
        self.tracer_provider.add_span_processor(_AtEnd(self.raising))
        self.logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self.logger_provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
        self.logger_provider.add_log_record_processor(SimpleLogRecordProcessor(self.logs))
        self.reader = PatientReader()
        self._failing_reader = PeriodicExportingMetricReader(
            FailingMetricExporter(random.Random(rng.getrandbits(64)), AggregationTemporality.DELTA),
            export_interval_millis=86_400_000,
        )
        self.meter_provider = MeterProvider(
            [self.reader, self._failing_reader], resource=resource, shutdown_on_exit=False
        )

    def export(self) -> None:
        """Collect as an exporter would whose exports fail now and then."""
        self._failing_reader.collect(timeout_millis=1e15)

    def events(self) -> dict[int, list[tuple[str, str]]]:
        """Name and severity of the log events, by operation."""
        found: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
        for each in self.logs.get_finished_logs():
            record = each.log_record
            number = self.recorder._operation_of.get(record.trace_id or 0, record.trace_id or 0)
            found[number].append((record.event_name or "", record.severity_text or ""))
        return found

    def points(self) -> Points:
        """What the reader collects."""
        data = self.reader.get_metrics_data()
        found: Points = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        key = (metric.name, tuple(sorted((point.attributes or {}).items())))
                        assert key not in found, f"{key} is exported twice"
                        found[key] = point
        return found

    def counters(self) -> dict[Any, float]:
        """All that never may fall: counters, and the counts of histograms and of their buckets."""
        totals: dict[Any, float] = {}
        for key, point in self.points().items():
            if hasattr(point, "bucket_counts"):
                totals[key] = point.count
                for place, number in enumerate(point.bucket_counts):
                    totals[key, place] = number
            elif key[0] not in NOT_COUNTERS:
                totals[key] = point.value
        return totals

    def close(self) -> None:
        """Shut the providers down."""
        self.tracer_provider.shutdown()
        self.logger_provider.shutdown()
        self.meter_provider.shutdown()
