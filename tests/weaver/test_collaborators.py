# SPDX-License-Identifier: Apache-2.0
"""Collaborators of any make are traced, as the kernel calls them and at no other time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from weaver_kernel import (
    AgentKernelError,
    AnthropicMiddleware,
    DeclarativePolicyEngine,
    Firewall,
    HandleStore,
    HMACTokenProvider,
    Kernel,
    OpenAIMiddleware,
    PolicyDenied,
    StaticRouter,
    TraceQuery,
    TraceStore,
    record_decision,
    replay,
)
from weaver_kernel.drivers.base import ExecutionContext
from weaver_kernel.models import CapabilityRequest

from agent_kernel_otel import KernelInstrumentor, semconv
from tests.support.capture import Capture
from tests.support.collaborators import (
    DRIVERS,
    DuckFirewall,
    FalsyForwarding,
    FirewallSubclass,
    FixedRouter,
    Forwarding,
    SlottedEngine,
    TracingProvider,
    mock_engine,
)
from tests.support.instrumented import drain, instrumented, open_stream
from tests.support.kernels import (
    ALICE,
    DESTROY,
    READ,
    StreamingDriver,
    grant,
    make_kernel,
    memory_driver,
    registry,
    token_of,
)

FULL_TREE = (semconv.INVOKE, [semconv.POLICY, semconv.DRIVER, semconv.FIREWALL])


async def invoke(kernel: Kernel, **options: Any) -> Any:
    return await kernel.invoke(token_of(kernel), principal=ALICE, args={}, **options)


def state_of(thing: object) -> dict[str, Any]:
    return dict(vars(thing)) if hasattr(thing, "__dict__") else {}


@pytest.mark.parametrize("make", DRIVERS.values(), ids=DRIVERS)
async def test_a_driver_of_any_make_is_one_attempt_and_is_not_changed(
    capture: Capture, make: Callable[[], Any]
) -> None:
    driver = make()
    before, kind = state_of(driver), type(driver)
    on_class = dict(vars(kind))
    kernel = make_kernel(driver)
    await invoke(kernel)
    attempt = capture.root().only(semconv.DRIVER)
    assert attempt[semconv.DRIVER_ID] == driver.driver_id
    assert attempt[semconv.STATUS] == "success"
    assert vars(kernel)["_drivers"][driver.driver_id] is driver
    assert type(driver) is kind
    assert dict(vars(kind)) == on_class
    assert state_of(driver).keys() == before.keys()


async def test_a_driver_put_into_the_drivers_table_directly_is_traced(capture: Capture) -> None:
    kernel = make_kernel(route=["late"])
    kernel._drivers["late"] = memory_driver("late")
    await invoke(kernel)
    assert capture.root().only(semconv.DRIVER)[semconv.DRIVER_ID] == "late"


async def test_a_kernel_made_before_is_traced() -> None:
    kernel = make_kernel()
    with instrumented() as captured:
        grant(kernel)
        await invoke(kernel)
        assert captured.root(semconv.INVOKE).outline() == FULL_TREE


@pytest.mark.parametrize("make", [SlottedEngine, mock_engine])
def test_a_policy_engine_of_any_make_is_asked_once_in_one_span(
    capture: Capture, make: Callable[[], Any]
) -> None:
    engine = make()
    kernel = make_kernel(policy=engine)
    grant(kernel)
    policy = capture.root().only(semconv.POLICY)
    assert policy[semconv.POLICY_ENGINE] == type(engine).__name__
    assert policy[semconv.POLICY_OUTCOME] == "allowed"
    calls = engine.calls if isinstance(engine, SlottedEngine) else engine.evaluate.call_count
    assert calls == 1
    assert vars(kernel)["_policy"] is engine


@pytest.mark.parametrize("firewall", [DuckFirewall(), FirewallSubclass()])
async def test_a_firewall_of_any_make_is_one_span(capture: Capture, firewall: Any) -> None:
    kernel = make_kernel(firewall=firewall)
    await invoke(kernel)
    assert capture.root().only(semconv.FIREWALL)[semconv.RESPONSE_MODE] == "summary"


@pytest.mark.parametrize("firewall", [DuckFirewall(), FirewallSubclass()])
async def test_a_firewall_of_any_make_is_one_span_for_a_whole_stream(
    capture: Capture, firewall: Any
) -> None:
    kernel = make_kernel(StreamingDriver(), firewall=firewall)
    frames = await drain(open_stream(kernel))
    assert len(frames) > 1
    assert len(capture.root().named(semconv.FIREWALL)) == 1


async def test_the_spans_of_a_third_party_token_provider_are_children_of_the_policy_span(
    capture: Capture,
) -> None:
    provider = TracingProvider(capture.tracer_provider.get_tracer("keys"))
    kernel = make_kernel(token_provider=provider)
    await invoke(kernel)
    policy = capture.root().only(semconv.POLICY)
    assert [child.name for child in policy.children] == ["key server"]
    assert policy[semconv.POLICY_ENGINE] == "TracingProvider"


@pytest.mark.parametrize("kind", [Forwarding, FalsyForwarding])
async def test_third_party_stores_and_routers_are_called_through(
    debug_capture: Capture, kind: type[Forwarding]
) -> None:
    kernel: Any = make_kernel()
    handles, traces = HandleStore(), TraceStore()
    kernel._router = kind(StaticRouter(fallback=["memory"]))
    kernel._handle_store = kind(handles)
    kernel._trace_store = kind(traces, without="query")
    frame = await invoke(kernel)
    kernel.expand(frame.handle, query={"limit": 1}, principal=ALICE)
    names = [child.name for child in debug_capture.root(semconv.INVOKE).children]
    assert {semconv.ROUTE, semconv.HANDLE, semconv.AUDIT} <= set(names)
    assert len(traces.list_all()) == 2
    assert kernel.list_traces() == traces.list_all()
    with pytest.raises(AttributeError):
        kernel.query_traces(TraceQuery())


async def test_kernels_that_share_collaborators_keep_their_spans_apart(
    debug_capture: Capture,
) -> None:
    shared: dict[str, Any] = {
        "firewall": Firewall(), "handle_store": HandleStore(), "trace_store": TraceStore(),
    }  # fmt: skip
    both_inside = asyncio.Event()
    inside: list[str] = []

    class Meeting:
        def __init__(self, driver_id: str) -> None:
            self.driver_id = driver_id

        async def execute(self, ctx: ExecutionContext) -> Any:
            inside.append(self.driver_id)
            if len(inside) == 2:
                both_inside.set()
            await both_inside.wait()
            return await memory_driver().execute(ctx)

    one = make_kernel(Meeting("one"), kernel_id="one", **shared)
    two = make_kernel(Meeting("two"), kernel_id="two", **shared)
    await asyncio.gather(invoke(one), invoke(two))
    for root in debug_capture.roots():
        assert root.only(semconv.DRIVER)[semconv.DRIVER_ID] == root[semconv.KERNEL_ID]
        assert len(root.children) == 6
    assert {root[semconv.KERNEL_ID] for root in debug_capture.roots()} == {"one", "two"}


async def test_collaborators_used_without_a_kernel_emit_nothing(capture: Capture) -> None:
    driver, engine = memory_driver(), SlottedEngine()
    provider = HMACTokenProvider(secret="alone")
    capability = registry().get(READ)
    context = ExecutionContext(READ, "alice", {}, {}, "action")
    result = await driver.execute(context)
    Firewall().transform(
        result, action_id="a", principal_id="alice", principal_roles=[], response_mode="summary"
    )
    engine.evaluate(CapabilityRequest(READ, "goal"), capability, ALICE, justification="")
    token = provider.issue(READ, "alice")
    provider.verify(token, expected_principal_id="alice", expected_capability_id=READ)
    assert capture.spans() == []
    assert capture.events() == []


def test_explanations_and_replays_are_no_decisions(capture: Capture) -> None:
    engine = DeclarativePolicyEngine.from_dict(
        {"rules": [{"name": "no-purge", "match": {"safety_class": ["DESTRUCTIVE"]},
                    "action": "deny", "reason": "never"}], "default": "allow"}
    )  # fmt: skip
    kernel = make_kernel(policy=engine)
    request = CapabilityRequest(DESTROY, "purge")
    assert kernel.explain_denial(request, ALICE).denied
    record = record_decision(engine, request, registry().get(DESTROY), ALICE)
    replay([record], engine)
    assert capture.spans() == []
    assert capture.events() == []


def test_get_token_is_one_grant(capture: Capture) -> None:
    make_kernel().get_token(CapabilityRequest(READ, "goal"), ALICE, justification="j")
    assert capture.root().outline() == (semconv.GRANT, [semconv.POLICY])


async def test_a_kernel_subclass_that_calls_super_is_one_span(capture: Capture) -> None:
    class Audited(Kernel):
        def grant_capability(self, *args: Any, **kwargs: Any) -> Any:
            return super().grant_capability(*args, **kwargs)

        async def invoke(self, *args: Any, note: str = "", **kwargs: Any) -> Any:
            return await super().invoke(*args, **kwargs)

    kernel = Audited(registry(), token_provider=HMACTokenProvider(secret="s"))
    kernel.register_driver(memory_driver())
    token = grant(kernel).token
    await kernel.invoke(token, principal=ALICE, args={}, note="a third argument")
    assert [root.name for root in capture.roots()] == [semconv.GRANT, semconv.INVOKE]
    assert capture.root(semconv.INVOKE).outline() == FULL_TREE


async def test_adapters_show_as_a_grant_and_an_invocation(capture: Capture) -> None:
    openai = OpenAIMiddleware(make_kernel(), ALICE)
    name = openai.get_tools()[0]["name"]
    calls = [{"type": "function_call", "call_id": "1", "name": name, "arguments": "{}"}]
    outputs = await openai.handle_tool_calls(calls)
    assert len(outputs) == 1
    assert [root.name for root in capture.roots()] == [semconv.GRANT, semconv.INVOKE]
    capture.clear()
    anthropic = AnthropicMiddleware(make_kernel(), ALICE)
    uses = [
        {"type": "tool_use", "id": "1", "name": tool["name"], "input": {}}
        for tool in anthropic.get_tools()
        if "list" in json.dumps(tool)
    ]
    await anthropic.handle_tool_uses(uses[:1])
    assert [root.name for root in capture.roots()] == [semconv.GRANT, semconv.INVOKE]


async def test_a_denial_through_an_adapter_is_a_denied_grant_and_no_invocation(
    capture: Capture,
) -> None:
    openai = OpenAIMiddleware(make_kernel(), ALICE)
    tool = next(tool["name"] for tool in openai.get_tools() if "delete" in tool["name"])
    call = {"type": "function_call", "call_id": "1", "name": tool, "arguments": "{}"}
    await openai.handle_tool_calls([call])
    assert capture.root()[semconv.STATUS] == "denied"


def test_a_declarative_engines_subclass_is_not_asked_to_explain(capture: Capture) -> None:
    class Counting(DeclarativePolicyEngine):
        asked = 0

        def evaluate(self, *args: Any, **kwargs: Any) -> Any:
            type(self).asked += 1
            return super().evaluate(*args, **kwargs)

    kernel = make_kernel(policy=Counting.from_dict({"rules": [], "default": "deny"}))
    with pytest.raises(PolicyDenied):
        grant(kernel)
    assert Counting.asked == 1


async def test_a_failing_route_is_the_routers_own(debug_capture: Capture) -> None:
    class Lost(FixedRouter):
        def route(self, capability_id: str) -> Any:
            raise AgentKernelError("no way")

    with pytest.raises(AgentKernelError):
        await invoke(make_kernel(router=Lost()))
    root = debug_capture.root()
    assert root.only(semconv.ROUTE)[semconv.ERROR_TYPE] == "AgentKernelError"
    assert root[semconv.STATUS] == "error"


async def test_uninstrumenting_during_a_call_ends_its_spans_once(capture: Capture) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    class Waiting:
        driver_id = "waiting"

        async def execute(self, ctx: ExecutionContext) -> Any:
            reached.set()
            await go_on.wait()
            return await memory_driver().execute(ctx)

    task = asyncio.ensure_future(invoke(make_kernel(Waiting())))
    await reached.wait()
    KernelInstrumentor().uninstrument()
    go_on.set()
    assert (await task).response_mode == "summary"
    assert capture.root().only(semconv.DRIVER)[semconv.STATUS] == "success"
    KernelInstrumentor().instrument(**capture.providers)
