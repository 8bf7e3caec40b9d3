# SPDX-License-Identifier: Apache-2.0
"""Log events where there are no spans, or none are wanted; and what they belong to."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from weaver_kernel import DriverError, HandleConstraintViolation, Kernel, PolicyDenied, TokenRevoked
from weaver_kernel.drivers.base import ExecutionContext

from agent_kernel_otel import semconv
from tests.support.capture import Capture
from tests.support.instrumented import drain, instrumented, open_stream
from tests.support.kernels import (
    ALICE,
    BOB,
    WRITE,
    StreamingDriver,
    grant,
    make_kernel,
    memory_driver,
    token_of,
)

UNSAMPLED = SpanContext(0x1234, 0x5678, is_remote=True, trace_flags=TraceFlags(0))


async def make_trouble(kernel: Kernel) -> None:
    """One of each: a refused grant, token and expansion; a failed driver and stream; a success."""
    with pytest.raises(PolicyDenied):
        grant(kernel, WRITE)
    revoked = token_of(kernel)
    vars(kernel)["_token_provider"].revoke(revoked.token_id)
    with pytest.raises(TokenRevoked):
        await kernel.invoke(revoked, principal=ALICE, args={})
    frame = await kernel.invoke(token_of(kernel), principal=ALICE, args={})
    assert frame.handle is not None
    with pytest.raises(HandleConstraintViolation):
        kernel.expand(frame.handle, query={}, principal=BOB)
    with pytest.raises(DriverError):
        await kernel.invoke(token_of(kernel), principal=ALICE, args={"fail": True})
    with pytest.raises(DriverError):
        await drain(open_stream(kernel, constraints={"invoke_timeout_s": -1}))


TROUBLE = [
    (semconv.POLICY_DECISION, "grant", "missing_role"),
    (semconv.POLICY_DECISION, "enforce", "token_revoked"),
    (semconv.POLICY_DECISION, "expand", "handle_principal_mismatch"),
    (semconv.INVOKE_EXCEPTION, None, None),
    (semconv.INVOKE_EXCEPTION, None, None),
]


def troubled_kernel() -> Kernel:
    def answer(ctx: ExecutionContext) -> list[int]:
        if ctx.args.get("fail"):
            raise ValueError("no")
        return [1]

    return make_kernel(memory_driver(answer=answer))


def told(capture: Capture) -> list[tuple[Any, Any, Any]]:
    return [
        (event.name, event.attributes.get(semconv.POLICY_PHASE),
         event.attributes.get(semconv.REASON_CODE))
        for event in capture.events()
    ]  # fmt: skip


async def test_each_event_is_in_the_context_of_a_span_that_was_exported(capture: Capture) -> None:
    await make_trouble(troubled_kernel())
    assert told(capture) == TROUBLE
    exported = {
        (span.context.trace_id, span.context.span_id): span.name
        for span in capture.spans()
        if span.context is not None
    }
    assert [exported[event.trace_id, event.span_id] for event in capture.events()] == [
        semconv.POLICY,
        semconv.POLICY,
        semconv.EXPAND,
        semconv.INVOKE,
        semconv.INVOKE,
    ]


async def test_events_go_on_where_spans_are_switched_off() -> None:
    with instrumented(span_level="off") as capture:
        await make_trouble(troubled_kernel())
        assert told(capture) == TROUBLE
        assert not capture.spans()
        assert {event.trace_id for event in capture.events()} == {0}


async def test_events_belong_to_the_callers_span_where_ours_are_switched_off() -> None:
    with instrumented(span_level="off") as capture:
        tracer = capture.tracer_provider.get_tracer("app")
        with tracer.start_as_current_span("request") as request:
            await make_trouble(troubled_kernel())
        context = request.get_span_context()
        assert {(event.trace_id, event.span_id) for event in capture.events()} == {
            (context.trace_id, context.span_id)
        }
        assert [span.name for span in capture.spans()] == ["request"]


async def test_events_go_on_under_a_sampler_that_samples_nothing() -> None:
    with instrumented(ALWAYS_OFF) as capture:
        await make_trouble(troubled_kernel())
        assert told(capture) == TROUBLE
        assert not capture.spans()


async def test_events_go_on_under_a_parent_that_was_not_sampled(capture: Capture) -> None:
    context = trace.set_span_in_context(NonRecordingSpan(UNSAMPLED))

    token = attach(context)
    try:
        await make_trouble(troubled_kernel())
    finally:
        detach(token)
    assert told(capture) == TROUBLE
    assert {event.trace_id for event in capture.events()} == {UNSAMPLED.trace_id}
    assert not capture.spans()


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ParentBased(ALWAYS_OFF)])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_drivers_code_sees_that_its_trace_is_not_sampled(
    sampler: Any, streamed: bool
) -> None:
    seen: list[SpanContext] = []

    def look(_: object) -> None:
        seen.append(trace.get_current_span().get_span_context())

    with instrumented(sampler) as capture:
        tracer = capture.tracer_provider.get_tracer("driver")

        def answer(ctx: object) -> None:
            look(ctx)
            with tracer.start_as_current_span("query"):
                pass

        if streamed:
            await drain(open_stream(make_kernel(StreamingDriver(before_chunk=answer))))
        else:
            kernel = make_kernel(memory_driver(answer=answer))
            await kernel.invoke(token_of(kernel), principal=ALICE, args={})
        assert seen
        assert all(context.is_valid for context in seen)
        assert not any(context.trace_flags.sampled for context in seen)
        assert not trace.get_current_span().get_span_context().is_valid
        assert not capture.spans()


async def test_a_callers_span_stays_current_in_drivers_where_spans_are_switched_off() -> None:
    seen = []
    with instrumented(span_level="off") as capture:
        kernel = make_kernel(memory_driver(answer=lambda _: seen.append(trace.get_current_span())))
        tracer = capture.tracer_provider.get_tracer("app")
        with tracer.start_as_current_span("request") as request:
            await kernel.invoke(token_of(kernel), principal=ALICE, args={})
        assert seen == [request]


@pytest.mark.parametrize("settings", [{}, {"span_level": "off"}, {"span_level": "debug"}])
async def test_suppression_silences_spans_and_events(settings: dict[str, Any]) -> None:
    with instrumented(**settings) as capture:
        with suppress_instrumentation():
            await make_trouble(troubled_kernel())
        assert not capture.spans()
        assert not capture.events()
        await make_trouble(troubled_kernel())
        assert capture.events()


async def test_a_stream_is_suppressed_by_what_holds_at_its_first_step(capture: Capture) -> None:
    kernel = make_kernel(StreamingDriver())
    with suppress_instrumentation():
        made_suppressed = open_stream(kernel)
    await drain(made_suppressed)
    assert len(capture.roots()) == 1
    capture.clear()
    stepped_suppressed = open_stream(kernel)
    with suppress_instrumentation():
        await drain(stepped_suppressed)
    assert not capture.spans()


async def test_all_events_and_spans_are_told_apart_by_their_system(capture: Capture) -> None:
    await make_trouble(troubled_kernel())
    assert {event.attributes[semconv.SYSTEM] for event in capture.events()} == {"weaver_kernel"}
    assert {(span.attributes or {})[semconv.SYSTEM] for span in capture.spans()} == {
        "weaver_kernel"
    }
    scopes = {
        span.instrumentation_scope.name
        for span in capture.spans()
        if span.instrumentation_scope is not None
    }
    assert scopes == {semconv.SCOPE_WEAVER}


async def test_exception_events_do_not_say_who_called(capture: Capture) -> None:
    await make_trouble(troubled_kernel())
    for event in capture.events(semconv.INVOKE_EXCEPTION):
        assert semconv.PRINCIPAL_ID not in event.attributes
    for event in capture.events(semconv.POLICY_DECISION):
        assert event.attributes[semconv.PRINCIPAL_ID] in {"alice", "bob"}


@pytest.mark.parametrize("form", ["hash", "off"])
async def test_decision_events_keep_to_the_form_of_principal_ids(form: str) -> None:
    with instrumented(principal_id=form) as capture:
        await make_trouble(troubled_kernel())
        assert "alice" not in capture.exported_text()
        assert "bob" not in capture.exported_text()
