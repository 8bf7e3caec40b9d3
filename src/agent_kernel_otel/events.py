# SPDX-License-Identifier: Apache-2.0
"""Our log events as span events, for backends that show spans only."""

from __future__ import annotations

from typing import Any, Final

from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.trace import Span, get_current_span

from agent_kernel_otel.faults import faults

_PREFIX: Final = "agent_kernel."


class SpanEventProcessor(LogRecordProcessor):
    """Mirrors this package's log events as events of the span that they belong to.

    Policy decisions and exceptions are log events; a backend that takes spans only, Jaeger for
    one, never shows them. Where the logs go elsewhere too they are there twice. Add it before the
    processor that exports, which takes the record's context away::

        provider = LoggerProvider()
        provider.add_log_record_processor(SpanEventProcessor())
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter))

    An event is mirrored if its name starts with ``agent_kernel.``, and its trace and span ids
    are those of the span in its context or of the current span, and that span is recording. The
    span event has the log event's name, time and attributes; the body stays behind.
    """

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Mirror one record, where it is such an event."""
        record = log_record.log_record
        name = record.event_name
        if not name or not name.startswith(_PREFIX):
            return
        try:
            for span in (get_current_span(record.context), get_current_span()):
                if span.is_recording() and _is_of(span, record.trace_id, record.span_id):
                    attributes: Any = dict(record.attributes or {})
                    span.add_event(name, attributes, record.timestamp or record.observed_timestamp)
                    return
        except Exception:
            faults.swallow("mirroring a log event on its span")

    def enabled(self, *, event_name: str | None = None, **asked: Any) -> bool:  # noqa: ARG002
        """Whether this processor would mirror such a record."""
        return bool(event_name) and str(event_name).startswith(_PREFIX)

    def shutdown(self) -> None:
        """Nothing to release."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002
        """Nothing to flush."""
        return True


def _is_of(span: Span, trace_id: int | None, span_id: int | None) -> bool:
    context = span.get_span_context()
    return context.is_valid and (context.trace_id, context.span_id) == (trace_id, span_id)
