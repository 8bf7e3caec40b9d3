# SPDX-License-Identifier: Apache-2.0
"""The shape of each operation's span tree, and who its parents and links are."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from weaver_kernel import DeclarativePolicyEngine

from agent_kernel_otel import instrument_kernel, semconv, uninstrument_kernel
from tests.support.capture import Capture
from tests.support.kernels import ALICE, READ, grant, make_kernel, memory_driver


async def test_an_invocation_has_policy_driver_and_firewall_children(capture: Capture) -> None:
    kernel = make_kernel()
    token = grant(kernel).token
    capture.clear()
    await kernel.invoke(token, principal=ALICE, args={})
    assert capture.root().outline() == (
        semconv.INVOKE,
        [semconv.POLICY, semconv.DRIVER, semconv.FIREWALL],
    )


def test_a_grant_has_a_policy_child(capture: Capture) -> None:
    grant(make_kernel())
    assert capture.root().outline() == (semconv.GRANT, [semconv.POLICY])


async def test_a_fallback_shows_both_attempts_in_order(capture: Capture) -> None:
    def fail(_: object) -> None:
        raise ConnectionError("down")

    kernel = make_kernel(memory_driver("primary", fail), memory_driver("replica"))
    token = grant(kernel).token
    capture.clear()
    await kernel.invoke(token, principal=ALICE, args={})
    invoke = capture.root()
    attempts = invoke.named(semconv.DRIVER)
    assert [attempt[semconv.DRIVER_ID] for attempt in attempts] == ["primary", "replica"]
    assert [attempt[semconv.STATUS] for attempt in attempts] == ["error", "success"]
    assert [attempt.status for attempt in attempts] == ["ERROR", "UNSET"]
    assert invoke[semconv.FALLBACK] is True
    assert invoke[semconv.DRIVER_ID] == "replica"
    assert invoke.status == "UNSET"


async def test_an_invocation_links_to_its_grant(capture: Capture) -> None:
    kernel = make_kernel()
    token = grant(kernel).token
    await kernel.invoke(token, principal=ALICE, args={})
    granted, invoked = capture.root(semconv.GRANT), capture.root(semconv.INVOKE)
    assert [link.context for link in invoked.span.links] == [granted.span.context]
    assert invoked[semconv.TOKEN_ID] == granted[semconv.TOKEN_ID] == token.token_id
    assert invoked[semconv.GRANT_AGE] >= 0.0


async def test_operations_are_children_of_the_callers_span(capture: Capture) -> None:
    kernel = make_kernel()
    tracer = capture.tracer_provider.get_tracer("app")
    with tracer.start_as_current_span("request") as request:
        token = grant(kernel).token
        await kernel.invoke(token, principal=ALICE, args={})
        assert trace.get_current_span() is request
    assert [child.name for child in capture.root("request").children] == [
        semconv.GRANT,
        semconv.INVOKE,
    ]


async def test_debug_adds_the_inner_steps(debug_capture: Capture) -> None:
    kernel = make_kernel()
    token = grant(kernel).token
    debug_capture.clear()
    await kernel.invoke(token, principal=ALICE, args={})
    invoke = debug_capture.root()
    assert [child.name for child in invoke.children] == [
        semconv.POLICY,
        semconv.ROUTE,
        semconv.DRIVER,
        semconv.HANDLE,
        semconv.FIREWALL,
        semconv.AUDIT,
    ]
    assert invoke.only(semconv.ROUTE)[semconv.ROUTE_DRIVERS] == 1
    assert invoke.only(semconv.AUDIT)[semconv.EVENT_TYPE] == "invoke"
    assert invoke[semconv.CAPABILITY_ID] == READ


async def test_an_invocation_knows_its_grants_age_and_rule_though_the_grant_was_not_sampled() -> (
    None
):
    engine = DeclarativePolicyEngine.from_dict(
        {"rules": [{"name": "readers-read", "action": "allow", "match": {"roles": ["reader"]}}]}
    )
    captured = Capture()
    kernel = make_kernel(policy=engine)
    instrument_kernel(kernel, **captured.providers)
    unsampled = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(0))
    with trace.use_span(NonRecordingSpan(unsampled)):
        token = grant(kernel).token
    await kernel.invoke(token, principal=ALICE, args={})
    uninstrument_kernel(kernel)
    invoked = captured.root()
    assert invoked.name == semconv.INVOKE
    assert invoked[semconv.GRANT_AGE] >= 0.0
    assert invoked[semconv.GRANT_RULE] == "readers-read"
    assert not invoked.span.links, "the grant's span is nowhere to be found"
    captured.check()
