# SPDX-License-Identifier: Apache-2.0
"""Spans, events and metrics of one test, kept in memory and checked against the registry of names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from agent_kernel_otel import semconv
from agent_kernel_otel.semconv import MetricDefinition

_PYTHON_TYPES: dict[str, type] = {"string": str, "boolean": bool, "int": int, "double": float}


@dataclass(frozen=True)
class Event:
    """A log event as exported."""

    name: str
    severity: str
    attributes: dict[str, Any]
    body: Any
    trace_id: int
    span_id: int


class Node:
    """A finished span and its children, oldest first."""

    def __init__(self, span: ReadableSpan, children: list[Node]) -> None:
        self.span = span
        self.children = children

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def status(self) -> str:
        return self.span.status.status_code.name

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self.span.attributes or {})

    def __getitem__(self, attribute: str) -> Any:
        return self.attributes[attribute]

    def get(self, attribute: str) -> Any:
        return self.attributes.get(attribute)

    def named(self, name: str) -> list[Node]:
        """The children of that name."""
        return [child for child in self.children if child.name == name]

    def only(self, name: str) -> Node:
        """The one child of that name."""
        found = self.named(name)
        assert len(found) == 1, f"{len(found)} spans {name} under {self.name}"
        return found[0]

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            yield from child.walk()

    def outline(self) -> Any:
        """Names alone: a name, or a name with the outlines of its children."""
        if not self.children:
            return self.name
        return (self.name, [child.outline() for child in self.children])


class _Open(SpanProcessor):
    """Counts spans that were started and not ended."""

    def __init__(self) -> None:
        self.spans: dict[int, str] = {}

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        self.spans[span.get_span_context().span_id] = span.name

    def on_end(self, span: ReadableSpan) -> None:
        assert span.context is not None
        assert span.context.span_id in self.spans, f"{span.name} ended twice"
        del self.spans[span.context.span_id]


class Capture:
    """Providers of a test's own, and what came out of them."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self.span_exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self._open = _Open()
        self.tracer_provider.add_span_processor(self._open)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.span_exporter))
        self.log_exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self.logger_provider = LoggerProvider(shutdown_on_exit=False)
        self.logger_provider.add_log_record_processor(SimpleLogRecordProcessor(self.log_exporter))
        self.metric_reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.metric_reader], shutdown_on_exit=False)

    @property
    def providers(self) -> dict[str, Any]:
        """Keywords for ``instrument()``."""
        return {
            "tracer_provider": self.tracer_provider,
            "logger_provider": self.logger_provider,
            "meter_provider": self.meter_provider,
        }

    def clear(self) -> None:
        self.span_exporter.clear()
        self.log_exporter.clear()

    def spans(self) -> list[ReadableSpan]:
        return sorted(
            self.span_exporter.get_finished_spans(), key=lambda span: span.start_time or 0
        )

    def open_spans(self) -> list[str]:
        """Names of spans that were started and have not ended."""
        return list(self._open.spans.values())

    def roots(self) -> list[Node]:
        """The finished spans as trees."""
        spans = self.spans()
        nodes = {_span_id(span): Node(span, []) for span in spans}
        roots: list[Node] = []
        for span in spans:
            parent = nodes.get(span.parent.span_id) if span.parent is not None else None
            (roots if parent is None else parent.children).append(nodes[_span_id(span)])
        return roots

    def root(self, name: str | None = None) -> Node:
        """The one root, of that name if given."""
        found = [node for node in self.roots() if name is None or node.name == name]
        assert len(found) == 1, [node.outline() for node in found]
        return found[0]

    def events(self, name: str | None = None) -> list[Event]:
        """The log events, of that name if given."""
        found = []
        for exported in self.log_exporter.get_finished_logs():
            record = exported.log_record
            if name is None or record.event_name == name:
                found.append(
                    Event(
                        name=record.event_name or "",
                        severity=record.severity_number.name if record.severity_number else "",
                        attributes=dict(record.attributes or {}),
                        body=record.body,
                        trace_id=record.trace_id or 0,
                        span_id=record.span_id or 0,
                    )
                )
        return found

    def exported_text(self) -> str:
        """Every exported byte as text, for the search for what must not be there."""
        spans = [span.to_json() for span in self.span_exporter.get_finished_spans()]
        logs = [repr(log) + log.to_json() for log in self.log_exporter.get_finished_logs()]
        data = self.metric_reader.get_metrics_data()
        metrics = [] if data is None else [data.to_json(), repr(data)]
        return "\n".join(spans + logs + metrics)

    def metrics(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        data = self.metric_reader.get_metrics_data()
        for resource in () if data is None else data.resource_metrics:
            for scope in resource.scope_metrics:
                yield from scope.metrics

    def check(self) -> None:
        """Fail on an open span, and on any name or type that the registry does not have."""
        assert not self.open_spans(), f"spans never ended: {self.open_spans()}"
        for span in self.span_exporter.get_finished_spans():
            assert not span.events, f"{span.name} has span events; events are logs here"
            assert not span.status.description, f"{span.name} has a status text"
            kind = _kind_of(span)
            if kind is not None:
                _check_attributes(kind, dict(span.attributes or {}))
        for event in self.events():
            if event.name.startswith("agent_kernel."):
                assert event.name in semconv.EVENTS, f"event {event.name} is not in semconv"
                _check_attributes(event.name, event.attributes)
        for metric in self.metrics():
            definition = semconv.METRICS[metric.name]
            assert (metric.unit, metric.description) == (definition.unit, definition.description)
            for point in metric.data.data_points:
                _check_labels(definition, dict(point.attributes or {}))


def _check_labels(definition: MetricDefinition, labels: dict[str, Any]) -> None:
    """Fail on a label that the registry does not have, or that could be an id of its own."""
    allowed = {*definition.attributes, semconv.SYSTEM}
    assert labels.keys() <= allowed, f"{definition.name} has {labels.keys() - allowed}"
    for key, value in labels.items():
        attribute = semconv.ATTRIBUTES[key]
        assert attribute.sensitivity == "none", f"{definition.name} has {key}"
        known = {*attribute.values, semconv.OTHER}
        assert not attribute.values or value in known, f"{definition.name} has {key}={value}"


def _kind_of(span: ReadableSpan) -> str | None:
    attributes = span.attributes or {}
    if span.name.startswith("execute_tool ") and semconv.SYSTEM in attributes:
        return semconv.INVOKE
    if not span.name.startswith("agent_kernel."):
        return None
    assert span.name in semconv.SPANS, f"span {span.name} is not in semconv"
    return span.name


def _check_attributes(kind: str, attributes: dict[str, Any]) -> None:
    assert semconv.SYSTEM in attributes, f"{kind} has no {semconv.SYSTEM}"
    for key, value in attributes.items():
        definition = semconv.ATTRIBUTES.get(key)
        assert definition is not None, f"{key} on {kind} is not in semconv"
        assert kind in definition.on, f"{key} is not declared for {kind}"
        expected = _PYTHON_TYPES[definition.type]
        assert type(value) is expected, f"{key}={value!r} on {kind} is no {definition.type}"
        if definition.values:
            assert value in definition.values, f"{key}={value!r} is not among {definition.values}"


def _span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def outlines(nodes: Iterable[Node]) -> list[Any]:
    """The outlines of several trees."""
    return [node.outline() for node in nodes]
