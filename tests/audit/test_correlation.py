# SPDX-License-Identifier: Apache-2.0
"""From an action to its live span and back, on every path on which the kernel makes one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanContext, get_current_span
from weaver_kernel import AgentKernelError, Firewall, HandleStore, Kernel, TraceStore
from weaver_kernel.drivers.base import ExecutionContext
from weaver_kernel.models import ActionTrace

from agent_kernel_otel import action_id, semconv, trace_context
from tests.audit.scenes import SCENES, kernel_with
from tests.support.capture import Capture, Node
from tests.support.instrumented import (
    AsyncDriver,
    drain,
    instrumented,
    open_stream,
    turns_until,
)
from tests.support.kernels import (
    ALICE,
    WRITE,
    StreamingDriver,
    grant,
    make_kernel,
    memory_driver,
    token_of,
)


def failing(driver_id: str = "failing") -> Any:
    def handler(_: Any) -> Any:
        raise RuntimeError("no")

    return memory_driver(driver_id, handler)


async def invoke(kernel: Kernel, **options: Any) -> Any:
    return await kernel.invoke(token_of(kernel), principal=ALICE, args={}, **options)


async def refused(call: Awaitable[Any]) -> None:
    with suppress(AgentKernelError, RuntimeError, OSError):
        await call


async def all_drivers_fail(store: Any) -> None:
    await refused(invoke(kernel_with(store, failing("one"), failing("two"))))


async def fallback(store: Any) -> None:
    await invoke(kernel_with(store, failing(), memory_driver()))


async def firewall_fails(store: Any) -> None:
    class Broken(Firewall):
        def transform(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("firewall")

    await refused(invoke(kernel_with(store, firewall=Broken())))


async def handle_store_fails(store: Any) -> None:
    class Broken(HandleStore):
        def store(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("store")

    await refused(invoke(kernel_with(store, handle_store=Broken())))


async def stream_fails(store: Any) -> None:
    def before(number: int) -> None:
        if number == 2:
            raise RuntimeError("stream")

    await refused(drain(open_stream(kernel_with(store, StreamingDriver(before_chunk=before)))))


async def stream_fails_at_once(store: Any) -> None:
    def before(_: int) -> None:
        raise RuntimeError("stream")

    await refused(drain(open_stream(kernel_with(store, StreamingDriver(before_chunk=before)))))


async def stream_firewall_fails(store: Any) -> None:
    class Broken(Firewall):
        def transform(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("firewall")

    await refused(drain(open_stream(kernel_with(store, StreamingDriver(), firewall=Broken()))))


async def stream_cancelled(store: Any) -> None:
    reached = asyncio.Event()

    async def wait(number: int) -> None:
        if number == 1:
            reached.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(
        drain(open_stream(kernel_with(store, StreamingDriver(before_chunk=wait))))
    )
    await reached.wait()
    task.cancel()
    await turns_until(lambda: task.done() and store.list_all())


async def stream_cancelled_before_its_first_frame(store: Any) -> None:
    reached = asyncio.Event()

    async def wait(_: int) -> None:
        reached.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(
        drain(open_stream(kernel_with(store, StreamingDriver(before_chunk=wait))))
    )
    await reached.wait()
    task.cancel()
    await turns_until(lambda: task.done() and store.list_all())


async def stream_abandoned(store: Any) -> None:
    frames = open_stream(kernel_with(store, StreamingDriver()))
    await anext(frames)
    del frames
    gc.collect()
    await turns_until(store.list_all)


async def stream_closed_at_its_end(store: Any) -> None:
    frames = open_stream(kernel_with(store, StreamingDriver()))
    for _ in range(4):  # the last one is the kernel's own
        await anext(frames)
    await frames.aclose()
    await turns_until(store.list_all)


async def no_driver_is_registered(store: Any) -> None:
    await refused(invoke(kernel_with(store, memory_driver(), route=["missing"])))


async def out_of_time(store: Any) -> None:
    async def wait(_: ExecutionContext) -> Any:
        await asyncio.Event().wait()

    kernel = kernel_with(store, AsyncDriver("slow", wait))
    token = token_of(kernel, invoke_timeout_s=0.01)
    await refused(kernel.invoke(token, principal=ALICE, args={}))


async def cancelled_after_the_driver(store: Any) -> None:
    """The firewall is not awaited: what can be cancelled after the driver is the budget."""
    from weaver_kernel import BudgetManager

    reached = asyncio.Event()

    class Slow(BudgetManager):
        async def record_usage(self, *args: Any, **kwargs: Any) -> Any:
            reached.set()
            await asyncio.Event().wait()

    kernel = kernel_with(store, budget_manager=Slow(total_budget=10_000))
    task = asyncio.ensure_future(invoke(kernel))
    await reached.wait()
    task.cancel()
    await turns_until(task.done)


PATHS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    **SCENES,
    **{
        path.__name__: path
        for path in (
            all_drivers_fail, fallback, firewall_fails, handle_store_fails, stream_fails,
            stream_fails_at_once, stream_firewall_fails, stream_cancelled,
            stream_cancelled_before_its_first_frame, stream_abandoned, stream_closed_at_its_end,
            no_driver_is_registered, out_of_time, cancelled_after_the_driver,
        )
    },
}  # fmt: skip
"""Paths on each of which the kernel writes an audit record."""
NAMES = {"invoke": semconv.INVOKE, "expand": semconv.EXPAND, "deny": semconv.GRANT}


def operation(capture: Capture, name: str, action: str) -> Node:
    """The root span of that name and action."""
    found = [
        root
        for root in capture.roots()
        if root.name == name and root.get(semconv.ACTION_ID) == action
    ]
    assert len(found) == 1, capture.roots()
    return found[0]


class Asking(TraceStore):
    """Asks, as an app's own store can, for the span of each action whose record it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, SpanContext | None] = {}

    def record(self, trace: ActionTrace) -> None:
        self.found[trace.action_id] = trace_context(trace.action_id)
        super().record(trace)


@pytest.mark.parametrize("kind", [TraceStore, Asking])
@pytest.mark.parametrize("level", ["info", "debug"])
@pytest.mark.parametrize("path", PATHS)
async def test_an_action_and_its_live_span_find_each_other(
    path: str, level: str, kind: type[TraceStore]
) -> None:
    store = kind()
    with instrumented(span_level=level) as capture:
        await PATHS[path](store)
        records = store.list_all()
        assert records
        for record in records:
            span = operation(capture, NAMES[record.event_type], record.action_id).span
            context = trace_context(record.action_id)
            assert context == span.context
            assert context is not None
            assert action_id(context) == record.action_id
            if isinstance(store, Asking):
                assert store.found[record.action_id] == context


@pytest.mark.parametrize(
    "settings", [{"span_level": "off"}, {"sampler": ALWAYS_OFF}], ids=["off", "unsampled"]
)
@pytest.mark.parametrize("path", PATHS)
async def test_an_action_without_a_span_has_no_context(path: str, settings: dict[str, Any]) -> None:
    store = TraceStore()
    with instrumented(**settings):
        await PATHS[path](store)
        assert store.list_all()
        assert [trace_context(record.action_id) for record in store.list_all()] == [
            None for _ in store.list_all()
        ]


class Refusing(TraceStore):
    def record(self, trace: ActionTrace) -> None:
        raise OSError("disk full")


@pytest.mark.parametrize("path", ["succeed", "fail", "cancel", "stream", "deny"])
async def test_an_action_whose_record_is_lost_is_found_all_the_same(path: str) -> None:
    with instrumented() as capture:
        await refused(PATHS[path](Refusing()))
        (root,) = capture.roots()
        action = root[semconv.ACTION_ID]
        assert trace_context(action) == root.span.context


async def test_in_a_driver_the_action_is_found_already() -> None:
    found: list[Any] = []

    async def look(ctx: ExecutionContext) -> Any:
        found.append((trace_context(ctx.action_id), get_current_span().get_span_context()))
        return [{"n": 1}]

    with instrumented() as capture:
        frame = await invoke(make_kernel(AsyncDriver("looking", look)))
        root = capture.root()
        ((context, current),) = found
        assert context == root.span.context == trace_context(frame.action_id)
        assert current == root.only(semconv.DRIVER).span.context
        assert action_id(current) is None  # which is no operation


async def test_what_ends_before_there_is_an_action_has_none() -> None:
    with instrumented() as capture:
        kernel = make_kernel()
        token = token_of(kernel)
        token.signature = "forged"
        await refused(kernel.invoke(token, principal=ALICE, args={}))
        await kernel.invoke(token_of(kernel), principal=ALICE, args={}, dry_run=True)
        granted = grant(kernel)
        assert granted.token.token_id
        for root in capture.roots():
            assert semconv.ACTION_ID not in root.attributes
            assert root.span.context is not None
            assert action_id(root.span.context) is None


async def test_cancelled_before_its_first_step_there_is_neither_action_nor_span() -> None:
    store = TraceStore()
    with instrumented() as capture:
        task = asyncio.ensure_future(invoke(kernel_with(store)))
        task.cancel()
        await turns_until(task.done)
        assert capture.spans() == []
        assert store.list_all() == []


async def test_by_the_genai_convention_it_is_the_same() -> None:
    with instrumented(span_naming="gen_ai") as capture:
        frame = await invoke(make_kernel())
        root = capture.root("execute_tool tasks.list")
        assert root[semconv.GEN_AI_TOOL_CALL_ID] == root[semconv.ACTION_ID] == frame.action_id
        assert trace_context(frame.action_id) == root.span.context


async def test_a_refused_grant_and_its_record_find_each_other() -> None:
    store = TraceStore()
    with instrumented() as capture:
        with suppress(AgentKernelError):
            grant(kernel_with(store), WRITE, ALICE)
        (record,) = store.list_all()
        assert capture.root()[semconv.ACTION_ID] == record.action_id
