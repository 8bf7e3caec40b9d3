# SPDX-License-Identifier: Apache-2.0
"""Which span an audit record becomes: the same one each time that it is replayed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from opentelemetry.trace import SpanContext, TraceFlags

from agent_kernel_otel import semconv
from agent_kernel_otel.audit.records import SPAN_NAMES, AuditRecord
from agent_kernel_otel.config import InstrumentationConfig
from agent_kernel_otel.correlation import trace_context
from agent_kernel_otel.scrub import PrincipalRedactor, identifier
from agent_kernel_otel.telemetry import Attributes


@dataclass(slots=True)
class ReplayedSpan:
    """The span of an audit record. It has no parent, no children and hardly any length.

    Attributes:
        name: Its name, that of the live span.
        trace_id: 16 bytes.
        span_id: 8 bytes.
        time: When it began, in nanoseconds since the epoch.
        attributes: What the record tells, under the names that the live span has.
        failed: Whether its status is an error.
        live: The live span of the same action, where it is known.
    """

    name: str
    trace_id: bytes
    span_id: bytes
    time: int
    attributes: Attributes
    failed: bool
    live: SpanContext | None

    @property
    def end_time(self) -> int:
        """When it ended: backends take a span that ends as it begins for a faulty one."""
        return self.time + 1


def replayed_context(action_id: str) -> SpanContext:
    """Where the replayed span of an action is found, whoever replays it and whenever.

    The ids are the SHA-256 of the action id, and not its own 128 bits: those of a random UUID
    have some that are fixed, by which every sampler of a share would be misled.

    Args:
        action_id: The kernel's id of the action, as in its audit record.
    """
    trace_id, span_id = _ids(identifier(action_id) or "")
    return SpanContext(
        int.from_bytes(trace_id, "big"),
        int.from_bytes(span_id, "big"),
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def _ids(action_id: str) -> tuple[bytes, bytes]:
    digest = sha256(action_id.encode()).digest()
    return digest[:16], digest[16:24]


class Replay:
    """Makes the spans of records.

    Args:
        config: Names the spans and says in which form principals may leave; of the environment
            and the configuration file by default.
        find_live: What knows the live span of an action id; this process by default.
    """

    def __init__(
        self,
        config: InstrumentationConfig | None = None,
        find_live: Callable[[str], SpanContext | None] | None = None,
    ) -> None:
        config = config or InstrumentationConfig.resolve()
        self._find_live = find_live
        self._principal = PrincipalRedactor(config.principal_id, config.principal_hash_key)
        self._is_named_gen_ai = config.span_naming == "gen_ai"

    def span_of(self, record: AuditRecord) -> ReplayedSpan:
        """The span of a record."""
        attributes: Attributes = {
            semconv.SYSTEM: semconv.SYSTEM_WEAVER,
            semconv.REPLAYED: True,
            semconv.CAPABILITY_ID: record.capability_id,
            semconv.ACTION_ID: record.action_id,
            semconv.STATUS: record.status,
        }
        if record.principal_id is not None:
            principal = self._principal(record.principal_id)
            if principal is not None:
                attributes[semconv.PRINCIPAL_ID] = principal
        for key, value in (
            (semconv.TOKEN_ID, record.token_id),
            (semconv.RESPONSE_MODE, record.response_mode),
            (semconv.DRIVER_ID, record.driver_id),
            (semconv.HANDLE_ID, record.handle_id),
            (semconv.SENSITIVITY, record.sensitivity),
            (semconv.REASON_CODE, record.reason_code),
            (semconv.RESULT_ROWS, record.rows),
            (semconv.RESULT_WARNINGS, record.warnings),
        ):
            if value is not None:
                attributes[key] = value
        if record.failed:
            attributes[semconv.ERROR_TYPE] = semconv.OTHER  # no record holds the class
        name = SPAN_NAMES[record.event_type]
        if record.event_type == "invoke":
            self._add_tool_call(record, attributes)
            if self._is_named_gen_ai:
                name = f"{semconv.EXECUTE_TOOL} {record.capability_id}"
        trace_id, span_id = _ids(record.action_id)
        failed = record.status in {"error", "denied"}
        live = (self._find_live or trace_context)(record.action_id)
        return ReplayedSpan(name, trace_id, span_id, record.time, attributes, failed, live)

    def _add_tool_call(self, record: AuditRecord, attributes: Attributes) -> None:
        if record.facts is not None:
            attributes[semconv.RESULT_FACTS] = record.facts
        # The kernel writes no record of a dry run.
        attributes[semconv.DRY_RUN] = False
        attributes[semconv.GEN_AI_OPERATION_NAME] = semconv.EXECUTE_TOOL
        attributes[semconv.GEN_AI_TOOL_NAME] = record.capability_id
        attributes[semconv.GEN_AI_TOOL_TYPE] = "function"
        attributes[semconv.GEN_AI_TOOL_CALL_ID] = record.action_id
