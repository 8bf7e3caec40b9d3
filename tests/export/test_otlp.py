# SPDX-License-Identifier: Apache-2.0
"""What the fast encoder gives equals what the SDK gives for the same spans, whatever they hold."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.internal.decoder import _DecodeVarint  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from agent_kernel_otel import OTelTraceExporter, semconv
from agent_kernel_otel.audit.exporter import _Destination
from agent_kernel_otel.audit.records import AuditRecord, read_record
from agent_kernel_otel.audit.replay import Replay, ReplayedSpan
from agent_kernel_otel.config import InstrumentationConfig
from agent_kernel_otel.export import otlp
from agent_kernel_otel.export.otlp import Encoder

RESOURCE = Resource({"service.name": "agents ✓", "replicas": 3}, "https://example.org/resource/1")
TIMES = st.integers(0, 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    TEXT,
    # What is equal to each other in Python, and must not be taken for each other.
    st.sampled_from([0, 1, True, False, 0.0, -0.0, 1.0, "", "1", "True"]),
)
CONTEXTS = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    is_remote=st.booleans(),
    trace_flags=st.sampled_from([TraceFlags(0), TraceFlags(1)]),
    trace_state=st.sampled_from([TraceState(), TraceState([("vendor", "x")])]),
)
SPANS = st.builds(
    ReplayedSpan,
    name=st.one_of(st.sampled_from([semconv.INVOKE, semconv.EXPAND, semconv.GRANT]), TEXT),
    trace_id=st.binary(min_size=16, max_size=16).filter(any),
    span_id=st.binary(min_size=8, max_size=8).filter(any),
    time=TIMES,
    # The SDK drops an attribute without a name, and none of ours is.
    attributes=st.dictionaries(TEXT.filter(bool), VALUES, max_size=20),
    failed=st.booleans(),
    live=st.none() | CONTEXTS,
)


def of_the_sdk(spans: list[ReplayedSpan], resource: Resource) -> Any:
    """The request in which the SDK sends what ``OTelTraceExporter`` makes of the spans."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer: Any = provider.get_tracer("app")
    destination = _Destination(tracer.span_processor, resource)
    for span in spans:
        destination.tell(span)
    return encode_spans(memory.get_finished_spans())


def encoded(encoder: Encoder, spans: list[ReplayedSpan]) -> Any:
    return ExportTraceServiceRequest.FromString(encoder.request(encoder.spans(spans)))


@given(st.lists(st.lists(SPANS, min_size=1, max_size=4), min_size=1, max_size=3))
def test_requests_equal_those_of_the_sdk(batches: list[list[ReplayedSpan]]) -> None:
    encoder = Encoder(RESOURCE)
    for spans in batches:  # by one encoder, so that what it keeps is used
        assert encoded(encoder, spans) == of_the_sdk(spans, RESOURCE)


@given(st.lists(SPANS, min_size=4, max_size=12))
def test_requests_equal_those_of_the_sdk_while_what_is_kept_runs_over(
    spans: list[ReplayedSpan],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(otlp, "REMEMBERED", 3)
        encoder = Encoder(RESOURCE)
        for _ in range(2):
            assert encoded(encoder, spans) == of_the_sdk(spans, RESOURCE)
        assert len(encoder._attributes) <= 3
        assert len(encoder._common) <= 3


@pytest.mark.parametrize("span_naming", ["agent_kernel", "gen_ai"])
def test_records_of_every_kind_and_end_give_what_the_exporter_of_records_in_hand_sends(
    span_naming: Any,
) -> None:
    config = InstrumentationConfig(span_naming=span_naming)
    records = [
        AuditRecord(
            f"action-{event_type}-{status}",
            event_type,
            1_700_000_000_123_456_000,
            status,
            capability_id="zahlung.ausführen",
            principal_id="émile",
            token_id="token",
            response_mode="table",
            facts=0,
            rows=2**40,
        )
        for event_type in ("invoke", "expand", "deny")
        for status in ("success", "error", "denied", "cancelled")
    ]
    spans = [Replay(config).span_of(record) for record in records]
    assert encoded(Encoder(RESOURCE), spans) == of_the_sdk(spans, RESOURCE)


def test_records_in_hand_and_the_command_send_the_same_request() -> None:
    trace = {
        "action_id": "a-1",
        "event_type": "invoke",
        "invoked_at": "2026-03-01T12:00:00.000001Z",
        "capability_id": "search",
        "principal_id": "alice",
        "error": "Traceback: secret",
    }
    memory = InMemorySpanExporter()
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    assert OTelTraceExporter(provider).export([trace]).exported == 1
    span = Replay().span_of(read_record(trace))
    assert encoded(Encoder(RESOURCE), [span]) == encode_spans(memory.get_finished_spans())


def test_any_part_of_a_batch_makes_a_request() -> None:
    encoder = Encoder(RESOURCE)
    spans = [
        ReplayedSpan(str(n), bytes(15) + bytes([n]), b"12345678", n, {}, failed=False, live=None)
        for n in range(1, 6)
    ]
    parts = encoder.spans(spans)
    halves = [
        ExportTraceServiceRequest.FromString(encoder.request(half)).resource_spans[0]
        for half in (parts[:2], parts[2:])
    ]
    names = [[span.name for span in half.scope_spans[0].spans] for half in halves]
    assert names == [["1", "2"], ["3", "4", "5"]]
    assert halves[0].resource == halves[1].resource
    assert halves[0].scope_spans[0].scope == halves[1].scope_spans[0].scope


def test_a_text_that_cannot_be_encoded_costs_nothing_else() -> None:
    attributes: dict[str, Any] = {"before": 1, "broken": "a\ud800b", "after": 2}
    span = ReplayedSpan("x", b"1" * 16, b"2" * 8, 1, attributes, failed=False, live=None)
    request = encoded(Encoder(RESOURCE), [span])
    (sent,) = request.resource_spans[0].scope_spans[0].spans
    values = {pair.key: pair.value for pair in sent.attributes}
    assert [values["before"].int_value, values["after"].int_value] == [1, 2]
    assert values["broken"].string_value == "a?b"


@given(st.integers(0, 2**35))
def test_lengths_are_written_as_protobuf_reads_them(length: int) -> None:
    assert _DecodeVarint(otlp._varint(length), 0)[0] == length


def test_numbers_that_are_equal_and_differ_are_kept_apart() -> None:
    values: list[Any] = [0.0, -0.0, 0, False, 1, True, 1.0]
    batch = [
        ReplayedSpan("x", b"1" * 16, b"2" * 8, 1, {"value": value}, failed=False, live=None)
        for value in values
    ]
    request = encoded(Encoder(RESOURCE), batch)
    # As text, in which the two zeros are not equal.
    assert str(request) == str(of_the_sdk(batch, RESOURCE))
    assert "-0" in str(request)


def test_a_not_a_number_is_sent_as_such() -> None:
    attributes: dict[str, Any] = {"ratio": float("nan")}
    span = ReplayedSpan("x", b"1" * 16, b"2" * 8, 1, attributes, failed=False, live=None)
    request = encoded(Encoder(RESOURCE), [span])
    assert request.SerializeToString() == of_the_sdk([span], RESOURCE).SerializeToString()
