# SPDX-License-Identifier: Apache-2.0
"""Our log events as events of the span that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    InMemoryLogRecordExporter,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import set_span_in_context
from weaver_kernel import DriverError, PolicyDenied

from agent_kernel_otel import SpanEventProcessor, instrument_kernel
from tests.support.kernels import ALICE, DESTROY, grant, make_kernel, memory_driver


class Backend:
    """Takes spans and logs, and mirrors events."""

    def __init__(self, *, batch: bool = False, **tracing: Any) -> None:
        self.spans = InMemorySpanExporter()
        self.records = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self.tracer_provider = TracerProvider(shutdown_on_exit=False, **tracing)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.logger_provider = LoggerProvider(shutdown_on_exit=False)
        self.logger_provider.add_log_record_processor(SpanEventProcessor())
        self.logger_provider.add_log_record_processor(
            BatchLogRecordProcessor(self.records)
            if batch
            else SimpleLogRecordProcessor(self.records)
        )
        self.tracer = self.tracer_provider.get_tracer("test")
        self.logger = self.logger_provider.get_logger("test")

    def span(self, name: str) -> ReadableSpan:
        (found,) = (span for span in self.spans.get_finished_spans() if span.name == name)
        return found

    def events(self, name: str) -> Sequence[Event]:
        return self.span(name).events


@pytest.mark.parametrize("batch", [False, True])
def test_an_event_of_ours_is_on_its_span_with_name_time_and_attributes(batch: bool) -> None:
    backend = Backend(batch=batch)
    with backend.tracer.start_as_current_span("work"):
        backend.logger.emit(
            event_name="agent_kernel.policy.decision",
            timestamp=123456789,
            attributes={"agent_kernel.reason_code": "missing_role"},
            body="denied",
        )
    (event,) = backend.events("work")
    assert event.name == "agent_kernel.policy.decision"
    assert event.timestamp == 123456789
    assert dict(event.attributes or {}) == {"agent_kernel.reason_code": "missing_role"}
    backend.logger_provider.shutdown()


def test_the_log_event_goes_its_own_way_too() -> None:
    backend = Backend()
    with backend.tracer.start_as_current_span("work") as span:
        backend.logger.emit(event_name="agent_kernel.policy.decision")
    (record,) = backend.records.get_finished_logs()
    assert record.log_record.span_id == span.get_span_context().span_id


def test_an_event_goes_to_the_span_in_its_own_context_not_to_the_current_one() -> None:
    backend = Backend()
    stage = backend.tracer.start_span("stage")
    with backend.tracer.start_as_current_span("around"):
        backend.logger.emit(
            event_name="agent_kernel.policy.decision", context=set_span_in_context(stage)
        )
    stage.end()
    assert len(backend.events("stage")) == 1
    assert len(backend.events("around")) == 0


@pytest.mark.parametrize("name", [None, "", "shop.sold", "agent_kernelized", "gen_ai.event"])
def test_records_that_are_no_events_of_ours_are_left_alone(name: str | None) -> None:
    backend = Backend()
    with backend.tracer.start_as_current_span("work"):
        backend.logger.emit(event_name=name, body="text")
    assert len(backend.events("work")) == 0
    assert len(backend.records.get_finished_logs()) == 1


def test_an_event_outside_any_span_is_left_alone() -> None:
    backend = Backend()
    backend.logger.emit(event_name="agent_kernel.policy.decision")
    assert len(backend.records.get_finished_logs()) == 1


def test_an_event_of_a_span_that_has_ended_is_left_alone() -> None:
    backend = Backend()
    ended = backend.tracer.start_span("ended")
    ended.end()
    with backend.tracer.start_as_current_span("around"):
        backend.logger.emit(
            event_name="agent_kernel.policy.decision", context=set_span_in_context(ended)
        )
    assert len(backend.events("ended")) == 0
    assert len(backend.events("around")) == 0


def test_an_event_of_a_span_that_is_not_sampled_does_no_harm() -> None:
    backend = Backend(sampler=ALWAYS_OFF)
    with backend.tracer.start_as_current_span("work"):
        backend.logger.emit(event_name="agent_kernel.policy.decision")
    assert len(backend.records.get_finished_logs()) == 1


def test_it_wants_our_events_and_no_other_records() -> None:
    processor = SpanEventProcessor()
    assert processor.enabled(event_name="agent_kernel.policy.decision") is True
    assert processor.enabled(event_name="shop.sold") is False
    assert processor.enabled() is False


async def test_a_denial_and_a_failure_of_a_real_kernel_are_on_their_spans() -> None:
    def fail(_: object) -> None:
        raise DriverError("refused")

    backend = Backend()
    kernel = make_kernel(memory_driver(answer=fail))
    instrument_kernel(
        kernel, tracer_provider=backend.tracer_provider, logger_provider=backend.logger_provider
    )
    with pytest.raises(PolicyDenied):
        grant(kernel, DESTROY)
    with pytest.raises(DriverError):
        await kernel.invoke(grant(kernel).token, principal=ALICE, args={})
    denied = [
        span
        for span in backend.spans.get_finished_spans()
        if [event.name for event in span.events] == ["agent_kernel.policy.decision"]
    ]
    assert [span.name for span in denied] == ["agent_kernel.policy.evaluate"]
    (failure,) = backend.events("agent_kernel.invoke")
    assert failure.name == "agent_kernel.invoke.exception"
