# SPDX-License-Identifier: Apache-2.0
"""Calls that are torn down from outside: dying loops, dead tasks, and an end of instrumentation."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from weaver_kernel.drivers.base import ExecutionContext

from agent_kernel_otel import KernelInstrumentor, semconv
from tests.support.capture import Capture, Node
from tests.support.instrumented import AsyncDriver, drain, open_stream, turns_until
from tests.support.kernels import ALICE, StreamingDriver, grant, make_kernel, token_of


def run_and_destroy(
    work: Callable[[], Any], until: asyncio.Event, loop: asyncio.AbstractEventLoop
) -> None:
    """Run a task until it waits, then close its loop under it and collect what is left."""
    logging.getLogger("asyncio").disabled = True  # it complains, and is right
    task = loop.create_task(work())
    loop.run_until_complete(until.wait())
    loop.close()
    del task
    gc.collect()
    logging.getLogger("asyncio").disabled = False


@pytest.mark.parametrize("constraints", [{}, {"invoke_timeout_s": 30.0}])
def test_an_invocation_whose_task_is_destroyed_is_cancelled_with_its_attempt(
    capture: Capture, constraints: dict[str, Any]
) -> None:
    loop = asyncio.new_event_loop()
    reached = asyncio.Event()

    async def run(_: ExecutionContext) -> None:
        reached.set()
        await asyncio.Event().wait()

    async def call() -> None:
        kernel = make_kernel(AsyncDriver("d", run))
        await kernel.invoke(token_of(kernel, **constraints), principal=ALICE, args={})

    run_and_destroy(call, reached, loop)
    root = capture.root()
    for node in (root, root.only(semconv.DRIVER)):
        assert node[semconv.STATUS] == "cancelled"
        assert node[semconv.ERROR_TYPE] == "CancelledError"
        assert node.status == "UNSET"
    assert not capture.events()
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.parametrize("constraints", [{}, {"invoke_timeout_s": 30.0}])
def test_a_stream_whose_task_is_destroyed_ends_without_error(
    capture: Capture, constraints: dict[str, Any]
) -> None:
    loop = asyncio.new_event_loop()
    reached = asyncio.Event()

    def before_chunk(_: int) -> Any:
        reached.set()
        return asyncio.Event().wait()

    async def call() -> None:
        kernel = make_kernel(StreamingDriver(before_chunk=before_chunk))
        await drain(open_stream(kernel, constraints=constraints))

    run_and_destroy(call, reached, loop)
    root = capture.root()
    assert root[semconv.STREAM_END] in {"abandoned", "cancelled"}
    assert [node.status for node in root.walk()] == ["UNSET"] * 4
    assert not capture.events()
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_a_driver_cleans_up_under_its_span_and_meets_the_raw_kernel(
    capture: Capture,
) -> None:
    seen: list[Any] = []

    class Driver(StreamingDriver):
        async def execute_stream(self, ctx: ExecutionContext) -> Any:
            try:
                yield {"n": 0}
                yield {"n": 1}
            finally:
                seen.append((kernel._drivers, kernel._firewall))
                with tracer.start_as_current_span("disconnect"):
                    pass

    tracer = capture.tracer_provider.get_tracer("driver")
    kernel = make_kernel(Driver())
    stream = open_stream(kernel)
    await anext(stream)
    await stream.aclose()
    await turns_until(lambda: seen)
    ((drivers, firewall),) = seen
    assert drivers is vars(kernel)["_drivers"]
    assert firewall is vars(kernel)["_firewall"]
    assert capture.root().only(semconv.DRIVER).only("disconnect")


def kinds(root: Node) -> list[str]:
    return sorted(child.name for child in root.children)


async def test_a_stream_that_outlives_the_instrumentation_ends_once(capture: Capture) -> None:
    kernel = make_kernel(StreamingDriver())
    stream = open_stream(kernel)
    await anext(stream)
    KernelInstrumentor().uninstrument()
    try:
        assert len(await drain(stream)) == 3
        root = capture.root()
        assert root[semconv.STREAM_END] == "exhausted"
        assert kinds(root) == sorted([semconv.POLICY, semconv.DRIVER, semconv.FIREWALL])
        grant(kernel)
        await drain(open_stream(kernel))
        assert len(capture.roots()) == 1
    finally:
        KernelInstrumentor().instrument(**capture.providers)


async def test_a_stream_that_was_made_before_the_instrumentation_is_left_alone(
    capture: Capture,
) -> None:
    KernelInstrumentor().uninstrument()
    stream = open_stream(make_kernel(StreamingDriver()))
    await anext(stream)
    KernelInstrumentor().instrument(**capture.providers)
    assert len(await drain(stream)) == 3
    assert not capture.spans()


async def test_an_invocation_that_outlives_the_instrumentation_ends_once(
    capture: Capture,
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def run(_: ExecutionContext) -> int:
        reached.set()
        await go_on.wait()
        return 1

    kernel = make_kernel(AsyncDriver("d", run))
    task = asyncio.create_task(kernel.invoke(token_of(kernel), principal=ALICE, args={}))
    await reached.wait()
    KernelInstrumentor().uninstrument()
    try:
        go_on.set()
        await task
        root = capture.root()
        assert root[semconv.STATUS] == "success"
        assert kinds(root) == sorted([semconv.POLICY, semconv.DRIVER])
    finally:
        KernelInstrumentor().instrument(**capture.providers)
