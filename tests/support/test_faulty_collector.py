# SPDX-License-Identifier: Apache-2.0
"""The faulty collector is as faulty as it says: seen with OpenTelemetry's own exporters."""

from __future__ import annotations

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
    OTLPSpanExporter as GrpcSpanExporter,
)
from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
    OTLPSpanExporter as HttpSpanExporter,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.faulty_collector import FaultyCollector, Protocol

SPANS = 5
PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http/protobuf")
both = pytest.mark.parametrize("protocol", PROTOCOLS)


def spans() -> tuple[ReadableSpan, ...]:
    ended = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ended))
    for _ in range(SPANS):
        provider.get_tracer("rig").start_span("work").end()
    return ended.get_finished_spans()


def export(collector: FaultyCollector, timeout: float = 1.0, times: int = 1) -> list[bool]:
    exporter = (
        GrpcSpanExporter(endpoint=collector.endpoint, timeout=timeout)
        if collector.protocol == "grpc"
        else HttpSpanExporter(endpoint=f"{collector.endpoint}/v1/traces", timeout=timeout)
    )
    arrived = [exporter.export(spans()) is SpanExportResult.SUCCESS for _ in range(times)]
    exporter.shutdown()
    return arrived


@both
@pytest.mark.parametrize("behaviour", ["refused", "dns_failure", "tar_pit"])
def test_nobody_answers(behaviour: str, protocol: Protocol) -> None:
    with FaultyCollector(behaviour, protocol) as collector:
        assert export(collector) == [False]
        assert collector.acknowledged()["traces"] == collector.stored()["traces"] == 0


@both
@pytest.mark.parametrize("behaviour", ["server_error", "resource_exhausted"])
def test_an_error_is_answered_and_nothing_stored(behaviour: str, protocol: Protocol) -> None:
    with FaultyCollector(behaviour, protocol) as collector:
        assert export(collector) == [False]
        assert collector.raw_bytes()
        assert collector.spans() == []
        assert collector.acknowledged()["traces"] == collector.stored()["traces"] == 0


@both
@pytest.mark.parametrize("behaviour", ["tls_mismatch", "plain_text"])
def test_no_request_gets_through_where_tls_fails(behaviour: str, protocol: Protocol) -> None:
    with FaultyCollector(behaviour, protocol) as collector:
        assert export(collector) == [False]
        assert collector.raw_bytes() == b""


@both
def test_a_slow_collector_stores_also_what_nobody_waits_for(protocol: Protocol) -> None:
    with FaultyCollector("slow", protocol) as collector:
        assert export(collector) == [False]
        assert export(collector, timeout=10.0) == [True]
        assert collector.acknowledged()["traces"] == SPANS
        assert collector.stored()["traces"] == 2 * SPANS


@both
def test_a_flapping_collector_takes_every_second_request(protocol: Protocol) -> None:
    with FaultyCollector("flapping", protocol) as collector:
        # So short that there is no second try.
        assert export(collector, timeout=0.5, times=4) == [False, True, False, True]
        assert collector.acknowledged()["traces"] == len(collector.spans()) == 2 * SPANS


@both
def test_an_unavailable_collector_comes_back(protocol: Protocol) -> None:
    with FaultyCollector("unavailable_then_ok", protocol, count=2) as collector:
        assert export(collector, timeout=0.5, times=3) == [False, False, True]
        assert collector.acknowledged()["traces"] == SPANS


@both
def test_some_items_of_a_request_are_rejected(protocol: Protocol) -> None:
    with FaultyCollector("partial_success", protocol, count=2) as collector:
        assert export(collector) == [True]
        assert collector.acknowledged()["traces"] == collector.stored()["traces"] == SPANS - 2


@both
def test_a_healthy_collector_takes_everything(protocol: Protocol) -> None:
    with FaultyCollector("healthy", protocol) as collector:
        assert export(collector) == [True]
        assert collector.acknowledged() == {"traces": SPANS, "logs": 0, "metrics": 0}
        assert [span.name for span in collector.spans()] == ["work"] * SPANS
        assert collector.environment() == {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        }
