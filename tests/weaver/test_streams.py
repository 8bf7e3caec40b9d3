# SPDX-License-Identifier: Apache-2.0
"""Streams that run: what their one span holds, and what is current while they do."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from time import monotonic, time_ns
from typing import Any

import pytest
from opentelemetry import trace
from weaver_kernel import BudgetManager, Firewall, Frame
from weaver_kernel.drivers.base import ExecutionContext
from weaver_kernel.firewall.budgets import Budgets
from weaver_kernel.models import RawResult

from agent_kernel_otel import semconv
from tests.support.capture import Capture
from tests.support.instrumented import AsyncDriver, drain, instrumented, open_stream, turns_until
from tests.support.kernels import (
    ADMIN,
    StreamingDriver,
    make_kernel,
    memory_driver,
)


async def test_a_consumed_stream_is_one_span_with_policy_driver_and_firewall(
    capture: Capture,
) -> None:
    frames = await drain(open_stream(make_kernel(StreamingDriver())))
    assert len(frames) == 4  # the kernel adds a final frame
    invoke = capture.root()
    assert sorted(child.name for child in invoke.children) == sorted(
        [semconv.POLICY, semconv.DRIVER, semconv.FIREWALL]
    )
    assert invoke[semconv.STREAM] is True
    assert invoke[semconv.STREAM_END] == "exhausted"
    assert invoke[semconv.STATUS] == "success"
    assert invoke.status == "UNSET"
    assert invoke[semconv.DRIVER_ID] == "streamer"
    assert invoke[semconv.FALLBACK] is False
    assert invoke.only(semconv.DRIVER)[semconv.STATUS] == "success"
    assert invoke.only(semconv.DRIVER)[semconv.DRIVER_ID] == "streamer"
    assert not capture.events()


async def test_a_streams_sums_are_those_of_its_frames(capture: Capture) -> None:
    chunks: list[dict[str, Any]] = [
        {"id": 1, "ssn": "078-05-1120"},
        {"id": 2, "cvv": "123", "password": "x"},
        {"id": 3},
    ]
    frames = await drain(open_stream(make_kernel(StreamingDriver(chunks)), response_mode="table"))
    invoke = capture.root()
    assert invoke[semconv.RESULT_ROWS] == sum(len(frame.table_preview) for frame in frames) == 4
    assert invoke[semconv.RESULT_FACTS] == 0
    redactions = sum(len(frame.warnings) for frame in frames)
    assert redactions >= 3
    assert invoke[semconv.REDACTIONS] == redactions
    assert invoke.only(semconv.FIREWALL)[semconv.REDACTIONS] == redactions
    assert invoke[semconv.RESPONSE_MODE] == "table"
    assert invoke.only(semconv.FIREWALL)[semconv.RESPONSE_MODE] == "table"


async def test_a_streams_facts_are_summed(capture: Capture) -> None:
    frames = await drain(open_stream(make_kernel(StreamingDriver())))
    assert capture.root()[semconv.RESULT_FACTS] == sum(len(frame.facts) for frame in frames) > 0


async def test_notices_about_raw_mode_are_no_redactions(capture: Capture) -> None:
    kernel = make_kernel(
        StreamingDriver([{"text": "x" * 200}]), firewall=Firewall(Budgets(max_chars=10))
    )
    frames = await drain(open_stream(kernel, principal=ADMIN, response_mode="raw"))
    assert any(frame.warnings for frame in frames)
    assert capture.root()[semconv.REDACTIONS] == 0


async def test_the_time_to_the_first_frame_is_told_in_milliseconds(capture: Capture) -> None:
    released = asyncio.Event()

    def before_chunk(number: int) -> Any:
        if number:
            return None
        asyncio.get_running_loop().call_later(0.02, released.set)
        return released.wait()

    started = monotonic()
    await drain(open_stream(make_kernel(StreamingDriver(before_chunk=before_chunk))))
    elapsed = capture.root()[semconv.TIME_TO_FIRST_CHUNK]
    assert type(elapsed) is float
    assert 15.0 < elapsed <= (monotonic() - started) * 1000.0


async def test_the_clock_of_a_stream_starts_at_its_first_step(capture: Capture) -> None:
    stream = open_stream(make_kernel(StreamingDriver()))
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, passed.set)
    await passed.wait()
    started, started_at = monotonic(), time_ns()
    await drain(stream)
    invoke = capture.root()
    assert (invoke.span.start_time or 0) >= started_at
    assert invoke[semconv.TIME_TO_FIRST_CHUNK] <= (monotonic() - started) * 1000.0


async def test_the_span_of_a_stream_includes_its_consumers_time(capture: Capture) -> None:
    stream = open_stream(make_kernel(StreamingDriver()))
    await anext(stream)
    first_at = time_ns()
    await drain(stream)
    span = capture.root().span
    assert (span.start_time or 0) <= first_at <= (span.end_time or 0)


async def test_a_streaming_driver_keeps_streaming(capture: Capture) -> None:
    class Driver(StreamingDriver):
        async def execute(self, ctx: ExecutionContext) -> RawResult:
            raise AssertionError("a streaming driver was executed as a single shot")

    reached: list[int] = []
    stream = open_stream(make_kernel(Driver(before_chunk=reached.append)))
    await anext(stream)
    assert reached == [0]  # the second chunk is not produced before it is asked for
    await drain(stream)


async def test_a_plan_without_streaming_driver_gives_one_frame_and_one_driver_span(
    capture: Capture,
) -> None:
    kernel = make_kernel(memory_driver())
    frames = await drain(open_stream(kernel, response_mode="table"))
    assert [frame.is_final for frame in frames] == [True]
    invoke = capture.root()
    assert invoke.outline() == (semconv.INVOKE, [semconv.POLICY, semconv.DRIVER, semconv.FIREWALL])
    assert invoke[semconv.STREAM_END] == "exhausted"
    assert invoke[semconv.HANDLE_ID] == frames[0].handle.handle_id  # type: ignore[union-attr]
    assert invoke[semconv.RESULT_ROWS] == 2
    assert invoke[semconv.TIME_TO_FIRST_CHUNK] >= 0.0


async def test_the_audit_record_and_the_span_share_the_action_id(capture: Capture) -> None:
    kernel = make_kernel(StreamingDriver())
    frames = await drain(open_stream(kernel))
    (record,) = kernel.list_traces()
    invoke = capture.root()
    assert invoke[semconv.ACTION_ID] == record.action_id == frames[0].action_id
    assert invoke[semconv.GEN_AI_TOOL_CALL_ID] == record.action_id


async def test_no_span_of_ours_is_current_between_chunks(capture: Capture) -> None:
    tracer = capture.tracer_provider.get_tracer("app")
    with tracer.start_as_current_span("request") as request:
        async for _ in open_stream(make_kernel(StreamingDriver())):
            assert trace.get_current_span() is request
            with tracer.start_as_current_span("handle the chunk"):
                pass
    request_node = capture.root("request")
    assert len(request_node.named("handle the chunk")) == 4
    assert len(request_node.named(semconv.INVOKE)) == 1


async def test_no_span_of_ours_is_current_after_a_break(capture: Capture) -> None:
    stream = open_stream(make_kernel(StreamingDriver()))
    async for _ in stream:
        break
    assert trace.get_current_span() is trace.INVALID_SPAN
    await stream.aclose()
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_interleaved_streams_keep_to_themselves(capture: Capture) -> None:
    kernel = make_kernel(StreamingDriver())
    first, second = open_stream(kernel), open_stream(kernel)
    for _ in range(4):
        await anext(first)
        assert trace.get_current_span() is trace.INVALID_SPAN
        await anext(second)
    assert await drain(first) == await drain(second) == []
    roots = capture.roots()
    assert len(roots) == 2
    assert len({root.span.context.trace_id for root in roots if root.span.context}) == 2
    for root in roots:
        assert len(root.named(semconv.DRIVER)) == 1
        assert len(root.named(semconv.FIREWALL)) == 1


async def test_two_streams_gathered_have_each_their_own_children(capture: Capture) -> None:
    kernel = make_kernel(StreamingDriver(before_chunk=lambda _: asyncio.sleep(0)))
    await asyncio.gather(*(drain(open_stream(kernel)) for _ in range(2)))
    for root in capture.roots():
        assert sorted(child.name for child in root.children) == sorted(
            [semconv.POLICY, semconv.DRIVER, semconv.FIREWALL]
        )


async def test_the_parent_is_the_callers_span_at_the_first_step(capture: Capture) -> None:
    tracer = capture.tracer_provider.get_tracer("app")
    with tracer.start_as_current_span("made here"):
        stream = open_stream(make_kernel(StreamingDriver()))
    with tracer.start_as_current_span("first step here"):
        await anext(stream)
    with tracer.start_as_current_span("finished here"):
        await drain(stream)
    assert [child.name for child in capture.root("first step here").children] == [semconv.INVOKE]
    assert not capture.root("made here").children
    assert not capture.root("finished here").children


@pytest.mark.parametrize("constraints", [{}, {"invoke_timeout_s": 30.0}])
async def test_a_stream_can_be_stepped_from_a_task_of_its_own_each_time(
    capture: Capture, constraints: dict[str, Any]
) -> None:
    tracer = capture.tracer_provider.get_tracer("app")
    driver = StreamingDriver(before_chunk=lambda _: asyncio.sleep(0))
    stream = open_stream(make_kernel(driver), constraints=constraints)

    async def step() -> Frame:
        with tracer.start_as_current_span("step"):
            frame: Frame = await anext(stream)
            return frame

    frames = [await asyncio.create_task(step()) for _ in range(4)]
    assert [frame.is_final for frame in frames] == [False, False, False, True]
    await drain(stream)
    (stepped,) = [root for root in capture.roots() if root.children]
    invoke = stepped.only(semconv.INVOKE)
    assert invoke[semconv.STREAM_END] == "exhausted"
    assert len(invoke.children) == 3


def test_a_stream_can_be_stepped_in_another_context_each_time(capture: Capture) -> None:
    stream = open_stream(make_kernel(StreamingDriver()))

    def step() -> Frame | None:
        try:
            stream.__anext__().send(None)
        except StopIteration as stopped:
            frame: Frame = stopped.value
            return frame
        except StopAsyncIteration:
            return None
        raise AssertionError("the stream waits")

    frames = []
    while (frame := contextvars.copy_context().run(step)) is not None:
        frames.append(frame)
    assert len(frames) == 4
    assert capture.root()[semconv.STREAM_END] == "exhausted"


async def test_spans_of_a_streaming_drivers_code_are_under_the_driver_span(
    capture: Capture,
) -> None:
    tracer = capture.tracer_provider.get_tracer("driver")

    def before_chunk(number: int) -> None:
        with tracer.start_as_current_span(f"query {number}"):
            pass

    await drain(open_stream(make_kernel(StreamingDriver(before_chunk=before_chunk))))
    driver = capture.root().only(semconv.DRIVER)
    assert [child.name for child in driver.children] == ["query 0", "query 1", "query 2"]


async def test_a_plain_function_of_a_streaming_driver_runs_under_the_driver_span(
    capture: Capture,
) -> None:
    tracer = capture.tracer_provider.get_tracer("driver")

    class Driver(StreamingDriver):
        def execute_stream(self, ctx: ExecutionContext) -> AsyncIterator[dict[str, Any]]:
            with tracer.start_as_current_span("connect"):
                return super().execute_stream(ctx)

    await drain(open_stream(make_kernel(Driver())))
    assert [child.name for child in capture.root().only(semconv.DRIVER).children] == ["connect"]


async def test_driver_code_in_a_stream_sees_the_raw_collaborators(capture: Capture) -> None:
    seen: list[Any] = []

    def before_chunk(number: int) -> None:
        seen.append((kernel._drivers, kernel._firewall, kernel._budget_manager))

    driver = StreamingDriver(before_chunk=before_chunk)
    kernel = make_kernel(driver, budget_manager=BudgetManager())
    await drain(open_stream(kernel))
    raw = vars(kernel)
    assert len(seen) == 3
    for drivers, firewall, budget in seen:
        assert drivers is raw["_drivers"]
        assert drivers["streamer"] is driver
        assert firewall is raw["_firewall"]
        assert budget is raw["_budget_manager"]


async def test_the_consumer_sees_the_raw_collaborators_between_chunks(capture: Capture) -> None:
    kernel = make_kernel(StreamingDriver())
    async for _ in open_stream(kernel):
        assert kernel._drivers is vars(kernel)["_drivers"]
        assert kernel._firewall is vars(kernel)["_firewall"]


async def test_a_driver_whose_stream_is_a_plain_async_iterator_is_traced(capture: Capture) -> None:
    class Chunks:
        def __init__(self) -> None:
            self.left = 3

        def __aiter__(self) -> Chunks:
            return self

        async def __anext__(self) -> dict[str, Any]:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return {"left": self.left}

    class Driver(StreamingDriver):
        def execute_stream(self, ctx: ExecutionContext) -> AsyncIterator[dict[str, Any]]:
            return Chunks()

    assert len(await drain(open_stream(make_kernel(Driver())))) == 4
    assert capture.root().only(semconv.DRIVER)[semconv.STATUS] == "success"


async def test_a_firewall_with_an_apply_stream_of_its_own_is_one_span(capture: Capture) -> None:
    tracer = capture.tracer_provider.get_tracer("firewall")
    seen: list[Any] = []

    class Filtering(Firewall):
        async def apply_stream(
            self, response_chunks: AsyncIterator[dict[str, Any]], **options: Any
        ) -> AsyncIterator[Frame]:
            seen.append(kernel._firewall)
            with tracer.start_as_current_span("load the filter"):
                pass
            async for frame in super().apply_stream(response_chunks, **options):
                seen.append(kernel._firewall)
                yield frame

    kernel = make_kernel(StreamingDriver(), firewall=Filtering())
    frames = await drain(open_stream(kernel))
    assert len(frames) == 4
    assert all(firewall is vars(kernel)["_firewall"] for firewall in seen)
    assert len(seen) == 5
    invoke = capture.root()
    assert len(invoke.named(semconv.FIREWALL)) == 1
    assert [len(node.children) for node in invoke.named(semconv.DRIVER)] == [0]


async def test_a_firewall_that_is_no_firewall_class_is_traced(capture: Capture) -> None:
    class Plain:
        budgets = Budgets()

        def __init__(self) -> None:
            self.real = Firewall()

        def transform(self, *args: Any, **kwargs: Any) -> Frame:
            return self.real.transform(*args, **kwargs)

        def apply_stream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Frame]:
            return self.real.apply_stream(*args, **kwargs)

    kernel = make_kernel(StreamingDriver(), firewall=Plain())
    assert len(await drain(open_stream(kernel))) == 4
    assert len(capture.root().named(semconv.FIREWALL)) == 1


async def test_a_stream_with_a_deadline_that_is_kept_is_a_success(capture: Capture) -> None:
    driver = StreamingDriver(before_chunk=lambda _: asyncio.sleep(0))
    await drain(open_stream(make_kernel(driver), constraints={"invoke_timeout_s": 30.0}))
    invoke = capture.root()
    assert invoke[semconv.STREAM_END] == "exhausted"
    assert invoke.only(semconv.DRIVER)[semconv.STATUS] == "success"


async def test_a_stream_at_level_debug_shows_the_inner_steps() -> None:
    with instrumented(span_level="debug") as capture:
        await drain(open_stream(make_kernel(StreamingDriver(), budget_manager=BudgetManager())))
        names = sorted(child.name for child in capture.root().children)
        assert names == sorted(
            [semconv.POLICY, semconv.ROUTE, semconv.DRIVER, semconv.FIREWALL, semconv.AUDIT]
        )


async def test_the_frames_are_the_kernels_own(capture: Capture) -> None:
    frames = await drain(open_stream(make_kernel(StreamingDriver())))
    assert {type(frame) for frame in frames} == {Frame}


async def test_a_driver_that_waits_in_a_single_shot_stream_is_traced(capture: Capture) -> None:
    async def run(_: ExecutionContext) -> list[int]:
        await asyncio.sleep(0)
        return [1]

    await drain(open_stream(make_kernel(AsyncDriver("slow", run))))
    assert capture.root().only(semconv.DRIVER)[semconv.DRIVER_ID] == "slow"


async def test_the_late_audit_record_of_a_closed_stream_has_the_spans_action_id(
    capture: Capture,
) -> None:
    kernel = make_kernel(StreamingDriver())
    stream = open_stream(kernel)
    await anext(stream)
    await stream.aclose()
    await turns_until(kernel.list_traces)
    (record,) = kernel.list_traces()
    assert capture.root()[semconv.ACTION_ID] == record.action_id
