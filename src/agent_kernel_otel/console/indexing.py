# SPDX-License-Identifier: Apache-2.0
"""From OTLP requests to the rows that the store selects by, and to counts of what happened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from agent_kernel_otel import semconv
from agent_kernel_otel.console.records import (
    SERVICE_NAME,
    ReceivedLog,
    ReceivedSpan,
    outcome_of,
    text_attribute,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

_TEXT_LENGTH: Final = 256
_INT64_MAX: Final = 2**63 - 1
_OPERATIONS: Final = frozenset(semconv.EXCEPTION_EVENTS)
_WANTED: Final = frozenset(
    {
        semconv.STATUS,
        semconv.POLICY_OUTCOME,
        semconv.CAPABILITY_ID,
        semconv.PRINCIPAL_ID,
        semconv.REASON_CODE,
        semconv.FALLBACK,
        semconv.REDACTIONS,
        semconv.GEN_AI_OPERATION_NAME,
    }
)


@dataclass(frozen=True)
class Counters:
    """What has been taken and let go since the store was opened.

    Attributes:
        spans: Spans taken.
        logs: Log records taken.
        points: Metric points taken.
        rejected: Spans refused because their ids are not valid.
        evicted_spans: Spans dropped to make room.
        evicted_logs: Log records dropped to make room.
        evicted_series: Metric series dropped to make room.
        denied: Kernel operations that were denied.
        cancelled: Kernel operations that were cancelled.
        errors: Spans that ended in an error.
        fallbacks: Invocations that tried more than one driver.
        redactions: The firewall's redactions, summed over invocations.
    """

    spans: int = 0
    logs: int = 0
    points: int = 0
    rejected: int = 0
    evicted_spans: int = 0
    evicted_logs: int = 0
    evicted_series: int = 0
    denied: int = 0
    cancelled: int = 0
    errors: int = 0
    fallbacks: int = 0
    redactions: int = 0

    def plus(self, amounts: dict[str, int]) -> Counters:
        """Gives these counters with amounts added to those named."""
        return replace(
            self, **{name: getattr(self, name) + amount for name, amount in amounts.items()}
        )


def span_rows(
    request: ExportTraceServiceRequest,
) -> tuple[list[tuple[Any, ...]], dict[str, int]]:
    """Reads the columns of each valid span, and counts what the spans say.

    Args:
        request: As received.

    Returns:
        Rows for the table ``spans`` without their batch, and amounts by name of a
        :class:`Counters` field; ``rejected`` counts the spans with an invalid id.
    """
    rows: list[tuple[Any, ...]] = []
    amounts = dict.fromkeys(
        ("rejected", "denied", "cancelled", "errors", "fallbacks", "redactions"), 0
    )
    for of_resource in request.resource_spans:
        service = text_attribute(of_resource.resource.attributes, SERVICE_NAME)[:_TEXT_LENGTH]
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                if not _has_valid_ids(span):
                    amounts["rejected"] += 1
                    continue
                known = {pair.key: pair.value for pair in span.attributes if pair.key in _WANTED}
                status, policy, capability, principal, reason = (
                    known[key].string_value[:_TEXT_LENGTH] if key in known else ""
                    for key in (
                        semconv.STATUS,
                        semconv.POLICY_OUTCOME,
                        semconv.CAPABILITY_ID,
                        semconv.PRINCIPAL_ID,
                        semconv.REASON_CODE,
                    )
                )
                outcome = outcome_of(status, policy, span.status.code)
                rows.append(
                    (
                        len(rows),
                        span.trace_id,
                        not span.parent_span_id,
                        span.name[:_TEXT_LENGTH],
                        service,
                        # SQLite's integers are signed, OTLP's times are not.
                        min(span.start_time_unix_nano, _INT64_MAX),
                        min(span.end_time_unix_nano, _INT64_MAX),
                        outcome,
                        capability,
                        principal,
                        reason,
                    )
                )
                if outcome == "error":
                    amounts["errors"] += 1
                if capability and (
                    span.name in _OPERATIONS or semconv.GEN_AI_OPERATION_NAME in known
                ):
                    if outcome in ("denied", "cancelled"):
                        amounts[outcome] += 1
                    if semconv.FALLBACK in known:
                        amounts["fallbacks"] += known[semconv.FALLBACK].bool_value
                    if semconv.REDACTIONS in known:
                        amounts["redactions"] += max(known[semconv.REDACTIONS].int_value, 0)
    amounts["spans"] = len(rows)
    return rows, amounts


def log_rows(request: ExportLogsServiceRequest) -> list[tuple[int, bytes]]:
    """Reads the columns of each log record, for the table ``logs`` without its batch."""
    return [
        (position, trace_id) for position, (trace_id, _) in enumerate(received_logs(0, request))
    ]


def received_spans(
    batch: int, request: ExportTraceServiceRequest
) -> Iterator[tuple[bytes, ReceivedSpan]]:
    """Takes a request apart into its valid spans, each with its trace id."""
    for of_resource in request.resource_spans:
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                if _has_valid_ids(span):
                    yield (
                        span.trace_id,
                        ReceivedSpan(batch, of_resource.resource, of_scope.scope, span),
                    )


def received_logs(
    batch: int, request: ExportLogsServiceRequest
) -> Iterator[tuple[bytes, ReceivedLog]]:
    """Takes a request apart into its log records, each with its trace id, empty if it has none."""
    for of_resource in request.resource_logs:
        for of_scope in of_resource.scope_logs:
            for record in of_scope.log_records:
                trace_id = record.trace_id
                yield (
                    trace_id if len(trace_id) == 16 and any(trace_id) else b"",
                    ReceivedLog(batch, of_resource.resource, of_scope.scope, record),
                )


def _has_valid_ids(span: Span) -> bool:
    trace_id, span_id = span.trace_id, span.span_id
    return len(trace_id) == 16 and len(span_id) == 8 and any(trace_id) and any(span_id)
