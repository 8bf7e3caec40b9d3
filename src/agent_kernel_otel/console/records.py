# SPDX-License-Identifier: Apache-2.0
"""What the console reads out of OTLP messages: spans and log records as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from agent_kernel_otel import semconv

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

AttributeValue = Any
"""Text, bool, int, float, bytes, None, or a list or dict of them."""

SERVICE_NAME: Final = "service.name"
SERVICE_INSTANCE: Final = "service.instance.id"

_STATUS_OK: Final = 1
_STATUS_ERROR: Final = 2
_KERNEL_OUTCOMES: Final = frozenset({"success", "error", "denied", "cancelled", "allowed"})


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it came, with the messages around it.

    Attributes:
        batch: Number of the request it came in; later requests have higher numbers.
        resource: Who sent it.
        scope: The instrumentation that made it.
        span: The OTLP message.
    """

    batch: int
    resource: Resource
    scope: InstrumentationScope
    span: Span


@dataclass(frozen=True)
class ReceivedLog:
    """A log record as it came, with the messages around it; see :class:`ReceivedSpan`."""

    batch: int
    resource: Resource
    scope: InstrumentationScope
    record: LogRecord


@dataclass(frozen=True)
class SpanView:
    """A span, ready to be shown.

    Attributes:
        span_id: 16 hexadecimal digits.
        parent_id: The parent's id; empty on a root.
        name: As sent.
        service: ``service.name`` of the sender; empty if it has none.
        start_ns: Start, in nanoseconds since 1970.
        end_ns: End, in the same unit; 0 if unknown.
        outcome: ``success``, ``error``, ``denied``, ``cancelled``, ``allowed`` or empty.
        status_message: Description of an error, as sent.
        attributes: As sent.
        events: Time in ns, name and attributes of each span event.
        links: Trace id and span id, both hexadecimal, of each link.
        batch: Number of the request it came in.
    """

    span_id: str
    parent_id: str
    name: str
    service: str
    start_ns: int
    end_ns: int
    outcome: str
    status_message: str
    attributes: dict[str, AttributeValue]
    events: list[tuple[int, str, dict[str, AttributeValue]]]
    links: list[tuple[str, str]]
    batch: int


@dataclass(frozen=True)
class LogView:
    """A log record, ready to be shown.

    Attributes:
        span_id: Span that it belongs to, hexadecimal; empty if none.
        service: ``service.name`` of the sender.
        time_ns: When it happened, or was observed, in nanoseconds since 1970; 0 if unknown.
        severity: For example ``WARN``; empty if not given.
        event_name: Name of an event; empty on a plain record.
        body: The message, as sent.
        attributes: As sent.
        batch: Number of the request it came in.
    """

    span_id: str
    service: str
    time_ns: int
    severity: str
    event_name: str
    body: AttributeValue
    attributes: dict[str, AttributeValue]
    batch: int


@dataclass
class Trace:
    """All that the store has of one trace.

    Attributes:
        trace_id: 32 hexadecimal digits.
        spans: In order of arrival, each span id once.
        logs: Log records that name this trace, in order of arrival.
    """

    trace_id: str
    spans: list[ReceivedSpan] = field(default_factory=list)
    logs: list[ReceivedLog] = field(default_factory=list)


def value_of(value: Any) -> AttributeValue:
    """Turns an ``AnyValue`` into the Python value that it stands for."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    inner = getattr(value, kind)
    if kind == "array_value":
        return [value_of(item) for item in inner.values]
    if kind == "kvlist_value":
        return attributes_of(inner.values)
    return inner


def attributes_of(pairs: Iterable[KeyValue]) -> dict[str, AttributeValue]:
    """Turns a list of key-value messages into a dict; of equal keys the last one counts."""
    return {pair.key: value_of(pair.value) for pair in pairs}


def text_attribute(pairs: Iterable[KeyValue], key: str) -> str:
    """Finds one text attribute; empty if it is absent or no text."""
    return next((pair.value.string_value for pair in pairs if pair.key == key), "")


def outcome_of(kernel_status: str, policy_outcome: str, status_code: int) -> str:
    """Says in one word how a span ended.

    The kernel's own words come first: a denial is no OpenTelemetry error.

    Args:
        kernel_status: Value of ``agent_kernel.status``, or empty.
        policy_outcome: Value of ``agent_kernel.policy.outcome``, or empty.
        status_code: The OTLP status code.

    Returns:
        ``success``, ``error``, ``denied``, ``cancelled``, ``allowed``, or empty if nothing says.
    """
    for word in (kernel_status, policy_outcome):
        if word in _KERNEL_OUTCOMES:
            return word
    return {_STATUS_OK: "success", _STATUS_ERROR: "error"}.get(status_code, "")


def view_span(received: ReceivedSpan) -> SpanView:
    """Reads a span for showing."""
    span = received.span
    attributes = attributes_of(span.attributes)
    return SpanView(
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        service=text_attribute(received.resource.attributes, SERVICE_NAME),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        outcome=outcome_of(
            str(attributes.get(semconv.STATUS, "")),
            str(attributes.get(semconv.POLICY_OUTCOME, "")),
            span.status.code,
        ),
        status_message=span.status.message,
        attributes=attributes,
        events=[
            (event.time_unix_nano, event.name, attributes_of(event.attributes))
            for event in span.events
        ],
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        batch=received.batch,
    )


def view_log(received: ReceivedLog) -> LogView:
    """Reads a log record for showing."""
    record = received.record
    return LogView(
        span_id=record.span_id.hex(),
        service=text_attribute(received.resource.attributes, SERVICE_NAME),
        time_ns=record.time_unix_nano or record.observed_time_unix_nano,
        severity=record.severity_text or _severity_name(record.severity_number),
        event_name=record.event_name,
        body=value_of(record.body),
        attributes=attributes_of(record.attributes),
        batch=received.batch,
    )


def _severity_name(number: int) -> str:
    names = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
    return names[(number - 1) // 4] if 1 <= number <= 24 else ""


@dataclass(frozen=True)
class TraceChange:
    """A trace of which something new has arrived.

    Attributes:
        trace_id: 16 bytes.
        has_root: Whether a span without parent is among what is new.
        start_ns: Earliest start of a new span, in nanoseconds since 1970; None if only log
            records are new.
    """

    trace_id: bytes
    has_root: bool
    start_ns: int | None
