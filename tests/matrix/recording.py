# SPDX-License-Identifier: Apache-2.0
"""Keeps what is emitted, checks each name and type against the registry, and draws the trees."""

from __future__ import annotations

import logging
import re
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind

from agent_kernel_otel import semconv

Seen = dict[str, Any]


class Recorder(SpanProcessor):
    """Keeps every span, with the attributes that a sampler would have seen."""

    def __init__(self) -> None:
        self.open: dict[int, dict[str, Any]] = {}
        self.scene: list[ReadableSpan] = []
        self.names: dict[int, str] = {}
        self.faults: list[str] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.open[span.context.span_id] = dict(span.attributes)
        self.names[span.context.span_id] = span.name

    def on_end(self, span: ReadableSpan) -> None:
        context = span.context
        assert context is not None
        self._conform(span, self.open.pop(context.span_id))
        self.scene.append(span)

    def _conform(self, span: ReadableSpan, at_start: dict[str, Any]) -> None:
        if span.name not in semconv.SPANS:
            self.faults.append(f"{span.name} is not a registered span")
        if span.kind is not SpanKind.INTERNAL:
            self.faults.append(f"{span.name} has kind {span.kind}")
        scope = span.instrumentation_scope
        if scope is None or scope.name != semconv.SCOPE_WEAVER:
            self.faults.append(f"{span.name} has another scope")
        if span.events:
            self.faults.append(f"{span.name} has span events")
        for name in span.attributes or {}:
            definition = semconv.ATTRIBUTES.get(name)
            if definition is not None and definition.at_start and name not in at_start:
                self.faults.append(f"{name} is missing when {span.name} starts")
        self.conform(span.name, dict(span.attributes or {}))

    def conform(self, name: str, attributes: dict[str, Any]) -> None:
        types = {"string": str, "boolean": bool, "int": int, "double": float}
        for key, value in attributes.items():
            definition = semconv.ATTRIBUTES.get(key)
            if definition is None or name not in definition.on:
                self.faults.append(f"{key} is not registered for {name}")
            elif type(value) is not types[definition.type]:
                self.faults.append(f"{key} of {name} is a {type(value).__name__}")
            elif definition.values and value not in definition.values:
                self.faults.append(f"{key} of {name} is {value!r}")


class Complaints(logging.Handler):
    """Whatever OpenTelemetry or the instrumentation finds wrong is a fault."""

    def emit(self, record: logging.LogRecord) -> None:
        recorder.faults.append(f"{record.name}: {record.getMessage()}")


recorder = Recorder()
logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
tracer_provider = TracerProvider(shutdown_on_exit=False)
tracer_provider.add_span_processor(recorder)
logger_provider = LoggerProvider(shutdown_on_exit=False)
logger_provider.add_log_record_processor(SimpleLogRecordProcessor(logs))
for watched in ("opentelemetry", "agent_kernel_otel"):
    logging.getLogger(watched).addHandler(Complaints(logging.WARNING))

PROVIDERS = {"tracer_provider": tracer_provider, "logger_provider": logger_provider}


def forget() -> None:
    """Drop what the preparation of a scene has emitted."""
    recorder.scene.clear()
    logs.clear()


def tree(seen: Seen) -> list[dict[str, Any]]:
    """The scene's spans as trees, oldest first, with ids named after what the app saw."""
    nodes: dict[int, dict[str, Any]] = {}
    roots: list[dict[str, Any]] = []
    for span in sorted(recorder.scene, key=lambda span: span.start_time or 0):
        assert span.context is not None
        attributes = dict(span.attributes or {})
        nodes[span.context.span_id] = {
            "name": span.name,
            "status": span.status.status_code.name,
            "description": span.status.description,
            "attributes": {key: _named(value, seen) for key, value in attributes.items()},
            "links": [recorder.names.get(link.context.span_id) for link in span.links],
            "events": [],
            "children": [],
        }
    for span in sorted(recorder.scene, key=lambda span: span.start_time or 0):
        assert span.context is not None
        parent = nodes.get(span.parent.span_id) if span.parent else None
        siblings = roots if parent is None else parent["children"]
        siblings.append(nodes[span.context.span_id])
    for item in logs.get_finished_logs():
        record = item.log_record
        name = record.event_name or ""
        recorder.conform(name, dict(record.attributes or {}))
        if name not in semconv.EVENTS:
            recorder.faults.append(f"{name} is not a registered event")
        if record.span_id in nodes:
            nodes[record.span_id]["events"].append([name, record.severity_text])
        else:
            recorder.faults.append(f"event {name} is in no span of its scene")
    return roots


def _named(value: Any, seen: Seen) -> Any:
    if isinstance(value, float):
        return "<float>"
    for name in ("token", "action", "handle"):
        if value and value == seen.get(name):
            return f"<{name}>"
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value):
        return "<id>"
    return value
