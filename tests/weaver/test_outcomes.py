# SPDX-License-Identifier: Apache-2.0
"""Invocations that fail: what their span says, and that the caller gets the very same exception."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import pytest
from weaver_kernel import (
    BudgetExhausted,
    BudgetManager,
    CapabilityNotFound,
    DriverError,
    Firewall,
    Frame,
    HandleStore,
    HandleTooLarge,
    Kernel,
    StaticRouter,
)
from weaver_kernel.drivers.base import ExecutionContext
from weaver_kernel.models import RawResult

from agent_kernel_otel import semconv
from tests.support.capture import Capture
from tests.support.instrumented import AsyncDriver, drain, instrumented, open_stream
from tests.support.kernels import ALICE, READ, grant, make_kernel, memory_driver, token_of
from tests.support.refusals import check_failed


async def invoke(kernel: Kernel, capability: str = READ, **constraints: Any) -> Frame:
    token = token_of(kernel, capability, **constraints)
    return await kernel.invoke(token, principal=ALICE, args={})


def last_function(error: BaseException) -> str:
    return traceback.extract_tb(error.__traceback__)[-1].name


async def test_a_success_has_no_status_code_and_no_event(capture: Capture) -> None:
    frame = await invoke(make_kernel())
    root = capture.root()
    assert root[semconv.STATUS] == "success"
    assert [node.status for node in root.walk()] == ["UNSET"] * 4
    assert root.get(semconv.ERROR_TYPE) is None
    assert root[semconv.ACTION_ID] == root[semconv.GEN_AI_TOOL_CALL_ID] == frame.action_id
    assert not capture.events()


async def test_an_unknown_capability_fails_after_the_enforcement(capture: Capture) -> None:
    with pytest.raises(CapabilityNotFound) as raised:
        await invoke(make_kernel(), "nowhere")
    root = check_failed(capture, semconv.INVOKE, raised.value)
    assert root.outline() == (semconv.INVOKE, [semconv.POLICY])
    assert root.get(semconv.SAFETY_CLASS) is None
    assert root[semconv.CAPABILITY_ID] == "nowhere"
    assert root.get(semconv.ACTION_ID) is None


async def test_a_plan_without_any_driver_fails_without_an_attempt(capture: Capture) -> None:
    kernel = make_kernel(router=StaticRouter(fallback=["absent"]))
    with pytest.raises(DriverError) as raised:
        await invoke(kernel)
    root = check_failed(capture, semconv.INVOKE, raised.value)
    assert not root.named(semconv.DRIVER)
    assert root.get(semconv.DRIVER_ID) is None
    assert root[semconv.FALLBACK] is False
    (record,) = kernel.list_traces()
    assert root[semconv.ACTION_ID] == record.action_id


async def test_a_stream_without_any_driver_fails_without_an_attempt(capture: Capture) -> None:
    kernel = make_kernel(router=StaticRouter(fallback=["absent"]))
    with pytest.raises(DriverError) as raised:
        await drain(open_stream(kernel))
    root = check_failed(capture, semconv.INVOKE, raised.value)
    assert not root.named(semconv.DRIVER)
    assert not root.named(semconv.FIREWALL)
    (record,) = kernel.list_traces()
    assert root[semconv.ACTION_ID] == record.action_id


async def test_an_exhausted_budget_fails_before_any_attempt(capture: Capture) -> None:
    budget = BudgetManager(10)
    await budget.record_usage(10)
    with pytest.raises(BudgetExhausted) as raised:
        await invoke(make_kernel(budget_manager=budget))
    assert last_function(raised.value) == "allocate"
    root = check_failed(capture, semconv.INVOKE, raised.value)
    assert root.outline() == (semconv.INVOKE, [semconv.POLICY])
    assert root.get(semconv.ACTION_ID) is None


async def test_an_exhausted_budget_at_level_debug_fails_the_allocation() -> None:
    budget = BudgetManager(10)
    await budget.record_usage(10)
    with instrumented(span_level="debug") as capture:
        with pytest.raises(BudgetExhausted):
            await invoke(make_kernel(budget_manager=budget))
        allocation = capture.root().only(semconv.BUDGET)
        assert allocation.status == "ERROR"
        assert allocation[semconv.ERROR_TYPE] == "BudgetExhausted"


@pytest.mark.parametrize("timeout", [0, -1, True, "soon"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_deadline_that_is_none_fails_before_any_attempt(
    capture: Capture, timeout: object, streamed: bool
) -> None:
    kernel = make_kernel()
    constraints: dict[str, Any] = {"invoke_timeout_s": timeout}
    call: Any
    if streamed:
        call = drain(open_stream(kernel, constraints=constraints))
    else:
        call = invoke(kernel, **constraints)
    with pytest.raises(DriverError) as raised:
        await call
    root = check_failed(capture, semconv.INVOKE, raised.value)
    assert root.outline() == (semconv.INVOKE, [semconv.POLICY])


async def test_a_router_that_fails_fails_the_invocation(capture: Capture) -> None:
    error = LookupError("no such route")

    class Router:
        def route(self, capability_id: str) -> Any:
            raise error

    with pytest.raises(LookupError) as raised:
        await invoke(make_kernel(router=Router()))
    assert raised.value is error
    assert last_function(error) == "route"
    check_failed(capture, semconv.INVOKE, error)


async def test_a_firewall_that_fails_is_told_on_its_span(capture: Capture) -> None:
    error = ValueError("not a table")
    error.__cause__ = cause = KeyError("c")

    class Broken(Firewall):
        def transform(self, *args: Any, **kwargs: Any) -> Frame:
            raise error

    kernel = make_kernel(firewall=Broken())
    with pytest.raises(ValueError, match="not a table") as raised:
        await invoke(kernel)
    assert raised.value is error
    assert error.__cause__ is cause
    assert last_function(error) == "transform"
    root = check_failed(capture, semconv.INVOKE, error)
    firewall = root.only(semconv.FIREWALL)
    assert firewall.status == "ERROR"
    assert firewall[semconv.ERROR_TYPE] == "ValueError"
    assert root.only(semconv.DRIVER)[semconv.STATUS] == "success"
    assert root.only(semconv.DRIVER).status == "UNSET"
    assert root.get(semconv.RESPONSE_MODE) is None
    (record,) = kernel.list_traces()
    assert root[semconv.ACTION_ID] == record.action_id


async def test_the_kernels_own_firewall_failing_is_told_too(capture: Capture) -> None:
    with pytest.raises(ValueError, match="many") as raised:
        await invoke(make_kernel(), max_rows="many")
    firewall = check_failed(capture, semconv.INVOKE, raised.value).only(semconv.FIREWALL)
    assert firewall.status == "ERROR"
    assert firewall[semconv.ERROR_TYPE] == "ValueError"


async def test_a_trace_store_that_fails_after_the_driver_ran_fails_the_invocation(
    capture: Capture,
) -> None:
    ran: list[object] = []

    class Full:
        def record(self, _: object) -> None:
            raise OSError("disk full")

    kernel = make_kernel(memory_driver(answer=ran.append), trace_store=Full())
    with pytest.raises(OSError, match="disk full") as raised:
        await invoke(kernel)
    assert len(ran) == 1
    assert last_function(raised.value) == "record"
    root = check_failed(capture, semconv.INVOKE, raised.value)
    assert [child.status for child in root.children] == ["UNSET"] * 3
    assert root.get(semconv.ACTION_ID)


async def test_a_result_too_large_for_the_handle_store_fails_after_the_driver_ran(
    capture: Capture,
) -> None:
    kernel = make_kernel(handle_store=HandleStore(max_entry_bytes=1))
    with pytest.raises(HandleTooLarge) as raised:
        await invoke(kernel)
    root = check_failed(capture, semconv.INVOKE, raised.value)
    assert root.outline() == (semconv.INVOKE, [semconv.POLICY, semconv.DRIVER])
    assert root.get(semconv.HANDLE_ID) is None


async def test_a_keyboard_interrupt_in_a_driver_passes_through_and_is_told(
    capture: Capture,
) -> None:
    stop = KeyboardInterrupt("stop")

    async def run(_: ExecutionContext) -> None:
        raise stop

    call = invoke(make_kernel(AsyncDriver("d", run)))
    with pytest.raises(KeyboardInterrupt) as raised:
        call.send(None)
    assert raised.value is stop
    root = check_failed(capture, semconv.INVOKE, stop)
    assert root.only(semconv.DRIVER).status == "ERROR"
    assert root.only(semconv.DRIVER)[semconv.ERROR_TYPE] == "KeyboardInterrupt"


async def test_an_invocation_whose_coroutine_is_closed_is_no_error(capture: Capture) -> None:

    async def run(_: ExecutionContext) -> None:
        await asyncio.sleep(0)

    call = invoke(make_kernel(AsyncDriver("d", run)))
    call.send(None)
    assert capture.open_spans()
    call.close()
    root = capture.root()
    assert root[semconv.STATUS] == "cancelled"
    assert [node.status for node in root.walk()] == ["UNSET"] * 3
    assert not capture.events()


@pytest.mark.parametrize("wrong", [{}, {"token": None}, {"args": {}}, {"surprise": 1}])
async def test_a_wrong_call_is_raised_at_the_call_and_gives_no_span(
    capture: Capture, wrong: dict[str, Any]
) -> None:
    kernel: Any = make_kernel()
    with pytest.raises(TypeError):
        kernel.invoke(**wrong)
    with pytest.raises(TypeError):
        kernel.invoke_stream(**wrong)
    with pytest.raises(TypeError):
        kernel.grant_capability(**wrong)
    with pytest.raises(TypeError):
        kernel.expand(**wrong)
    assert not capture.spans()
    assert not capture.events()


async def test_a_nonsensical_token_fails_in_the_kernel_with_the_kernels_error(
    capture: Capture,
) -> None:
    kernel: Any = make_kernel()
    with pytest.raises(AttributeError, match="capability_id"):
        await kernel.invoke(object(), principal=ALICE, args={})
    assert capture.root()[semconv.ERROR_TYPE] == "AttributeError"


async def test_a_raised_error_is_told_once_whatever_its_depth(capture: Capture) -> None:
    def fail(_: ExecutionContext) -> None:
        raise RuntimeError("deep")

    kernel = make_kernel(memory_driver(answer=fail))
    with pytest.raises(DriverError) as raised:
        await invoke(kernel)
    check_failed(capture, semconv.INVOKE, raised.value)


async def test_exception_text_is_told_only_on_request() -> None:
    def fail(_: ExecutionContext) -> None:
        raise RuntimeError("table tasks is locked, password=hunter2")

    with instrumented(capture_exception_text=True) as capture:
        with pytest.raises(DriverError):
            await invoke(make_kernel(memory_driver(answer=fail)))
        (event,) = capture.events()
        assert "table tasks is locked" in event.attributes[semconv.EXCEPTION_MESSAGE]
        assert "hunter2" not in capture.exported_text()


async def test_a_grant_and_its_invocation_fail_each_on_its_own_span(capture: Capture) -> None:
    def fail(_: ExecutionContext) -> None:
        raise RuntimeError("x")

    kernel = make_kernel(memory_driver(answer=fail))
    token = grant(kernel).token
    with pytest.raises(DriverError):
        await kernel.invoke(token, principal=ALICE, args={})
    assert capture.root(semconv.GRANT).status == "UNSET"
    assert capture.root(semconv.INVOKE).status == "ERROR"


class Returning:
    """A driver that returns no result object at all."""

    driver_id = "odd"

    async def execute(self, ctx: ExecutionContext) -> RawResult:
        return None  # type: ignore[return-value]


async def test_a_driver_that_returns_nothing_fails_as_without_us(capture: Capture) -> None:
    with pytest.raises(DriverError, match="No drivers available") as raised:
        await invoke(make_kernel(Returning()))
    root = check_failed(capture, semconv.INVOKE, raised.value)
    assert root.only(semconv.DRIVER)[semconv.STATUS] == "success"
