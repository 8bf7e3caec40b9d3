# SPDX-License-Identifier: Apache-2.0
"""Driver attempts: failures that a fallback makes good, deadlines, and cancellations."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import pytest
from weaver_kernel import DriverError, Frame, Kernel
from weaver_kernel.drivers.base import ExecutionContext

from agent_kernel_otel import semconv
from tests.support.capture import Capture
from tests.support.instrumented import AsyncDriver
from tests.support.kernels import ALICE, make_kernel, memory_driver, token_of
from tests.support.refusals import check_cancelled, check_failed


async def invoke(kernel: Kernel, **constraints: Any) -> Frame:
    return await kernel.invoke(token_of(kernel, **constraints), principal=ALICE, args={})


def failing(driver_id: str, error: BaseException) -> AsyncDriver:
    async def run(_: ExecutionContext) -> None:
        raise error

    return AsyncDriver(driver_id, run)


def stalling(driver_id: str, reached: asyncio.Event | None = None) -> AsyncDriver:
    async def run(_: ExecutionContext) -> None:
        if reached is not None:
            reached.set()
        await asyncio.Event().wait()

    return AsyncDriver(driver_id, run)


async def test_an_attempt_made_good_is_an_error_of_its_own_and_gives_no_event(
    capture: Capture,
) -> None:
    kernel = make_kernel(failing("first", OSError("down")), memory_driver("second"))
    await invoke(kernel)
    root = capture.root()
    first, second = root.named(semconv.DRIVER)
    assert (first[semconv.DRIVER_ID], second[semconv.DRIVER_ID]) == ("first", "second")
    assert (first[semconv.STATUS], second[semconv.STATUS]) == ("error", "success")
    assert (first.status, second.status) == ("ERROR", "UNSET")
    assert first[semconv.ERROR_TYPE] == "OSError"
    assert second.get(semconv.ERROR_TYPE) is None
    assert root[semconv.DRIVER_ID] == "second"
    assert root[semconv.FALLBACK] is True
    assert root[semconv.STATUS] == "success"
    assert root.status == "UNSET"
    assert root.get(semconv.ERROR_TYPE) is None
    assert not capture.events()


async def test_all_attempts_failing_is_one_failure_with_one_event(capture: Capture) -> None:
    kernel = make_kernel(failing("a", OSError("x")), failing("b", DriverError("y")))
    with pytest.raises(DriverError) as raised:
        await invoke(kernel)
    root = check_failed(capture, semconv.INVOKE, raised.value)
    assert [attempt[semconv.ERROR_TYPE] for attempt in root.named(semconv.DRIVER)] == [
        "OSError",
        "DriverError",
    ]
    assert root[semconv.DRIVER_ID] == "b"
    assert root[semconv.FALLBACK] is True
    assert not root.named(semconv.FIREWALL)
    (record,) = kernel.list_traces()
    assert root[semconv.ACTION_ID] == record.action_id


async def test_a_lone_attempt_that_fails_is_no_fallback(capture: Capture) -> None:
    with pytest.raises(DriverError):
        await invoke(make_kernel(failing("only", OSError("x"))))
    assert capture.root()[semconv.FALLBACK] is False
    assert capture.root()[semconv.DRIVER_ID] == "only"


async def test_drivers_that_are_not_registered_are_no_attempts(capture: Capture) -> None:
    kernel = make_kernel(memory_driver("here"), route=["absent", "here"])
    await invoke(kernel)
    root = capture.root()
    assert root.only(semconv.DRIVER)[semconv.DRIVER_ID] == "here"
    assert root[semconv.FALLBACK] is False


async def test_a_driver_that_delegates_is_one_attempt(capture: Capture) -> None:
    inner = memory_driver("inner")

    async def run(ctx: ExecutionContext) -> Any:
        return (await inner.execute(ctx)).data

    await invoke(make_kernel(AsyncDriver("outer", run)))
    assert capture.root().only(semconv.DRIVER)[semconv.DRIVER_ID] == "outer"


async def test_a_drivers_coded_error_is_a_failed_attempt_and_no_denial(capture: Capture) -> None:
    class CodedError(Exception):
        reason_code = "quota"

    with pytest.raises(DriverError) as raised:
        await invoke(make_kernel(failing("d", CodedError("no"))))
    attempt = check_failed(capture, semconv.INVOKE, raised.value).only(semconv.DRIVER)
    assert attempt[semconv.STATUS] == "error"
    assert attempt[semconv.ERROR_TYPE] == CodedError.__qualname__
    assert attempt.get(semconv.REASON_CODE) is None


async def test_the_drivers_exception_reaches_the_kernel_as_it_is(capture: Capture) -> None:
    error = OSError("down")
    error.__cause__ = cause = KeyError("c")
    seen: list[BaseException] = []

    async def run(ctx: ExecutionContext) -> Any:
        try:
            raise error
        except OSError as raised:
            seen.append(raised)
            raise

    with pytest.raises(DriverError, match="down"):
        await invoke(make_kernel(AsyncDriver("d", run)))
    assert seen == [error]
    assert error.__cause__ is cause
    assert traceback.extract_tb(error.__traceback__)[-1].name == "run"


# Deadlines ------------------------------------------------------------------------------------


async def test_an_attempt_past_the_deadline_timed_out_and_the_next_one_serves(
    capture: Capture,
) -> None:
    kernel = make_kernel(stalling("slow"), memory_driver("fast"))
    await invoke(kernel, invoke_timeout_s=0.02)
    root = capture.root()
    slow, fast = root.named(semconv.DRIVER)
    assert slow[semconv.STATUS] == "error"
    assert slow[semconv.ERROR_TYPE] == "TimeoutError"
    assert slow.status == "ERROR"
    assert fast[semconv.STATUS] == "success"
    assert slow.span.end_time is not None
    assert fast.span.start_time is not None
    assert slow.span.end_time <= fast.span.start_time
    assert root[semconv.STATUS] == "success"
    assert root.status == "UNSET"
    assert root[semconv.FALLBACK] is True
    assert not capture.events()


async def test_all_attempts_past_the_deadline_fail_the_invocation(capture: Capture) -> None:
    with pytest.raises(DriverError, match="timed out") as raised:
        await invoke(make_kernel(stalling("a"), stalling("b")), invoke_timeout_s=0.02)
    root = check_failed(capture, semconv.INVOKE, raised.value)
    attempts = root.named(semconv.DRIVER)
    assert [attempt[semconv.ERROR_TYPE] for attempt in attempts] == ["TimeoutError"] * 2
    assert [attempt.status for attempt in attempts] == ["ERROR"] * 2


async def test_a_deadline_that_is_kept_changes_nothing(capture: Capture) -> None:
    await invoke(make_kernel(), invoke_timeout_s=30.0)
    root = capture.root()
    assert root.outline() == (semconv.INVOKE, [semconv.POLICY, semconv.DRIVER, semconv.FIREWALL])
    assert root.only(semconv.DRIVER)[semconv.STATUS] == "success"


@pytest.mark.parametrize("error", [TimeoutError("own"), asyncio.TimeoutError("own")], ids=repr)
async def test_a_time_out_of_the_drivers_own_is_an_error(
    capture: Capture, error: Exception
) -> None:
    with pytest.raises(DriverError) as raised:
        await invoke(make_kernel(failing("d", error)))
    attempt = check_failed(capture, semconv.INVOKE, raised.value).only(semconv.DRIVER)
    assert attempt[semconv.ERROR_TYPE] == "TimeoutError"


async def test_a_driver_that_answers_its_deadline_with_an_error_of_its_own(
    capture: Capture,
) -> None:
    async def run(_: ExecutionContext) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionAbortedError("gave up") from None

    with pytest.raises(DriverError) as raised:
        await invoke(make_kernel(AsyncDriver("d", run)), invoke_timeout_s=0.02)
    attempt = check_failed(capture, semconv.INVOKE, raised.value).only(semconv.DRIVER)
    assert attempt[semconv.ERROR_TYPE] == "ConnectionAbortedError"


async def test_spans_of_the_drivers_code_are_under_its_attempt_with_a_deadline_too(
    capture: Capture,
) -> None:
    tracer = capture.tracer_provider.get_tracer("driver")

    async def run(_: ExecutionContext) -> int:
        with tracer.start_as_current_span("query"):
            await asyncio.sleep(0)
        return 1

    await invoke(make_kernel(AsyncDriver("d", run)), invoke_timeout_s=30.0)
    assert capture.root().only(semconv.DRIVER).only("query")


# Cancellations --------------------------------------------------------------------------------


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("constraints", [{}, {"invoke_timeout_s": 30.0}])
async def test_a_cancelled_invocation_cancels_its_attempt_and_is_no_error(
    capture: Capture, constraints: dict[str, Any]
) -> None:
    reached = asyncio.Event()
    kernel = make_kernel(stalling("d", reached), memory_driver("never"))
    task = asyncio.create_task(invoke(kernel, **constraints))
    await reached.wait()
    await cancel(task)
    root = check_cancelled(capture, semconv.INVOKE)
    attempt = root.only(semconv.DRIVER)
    assert attempt[semconv.STATUS] == "cancelled"
    assert attempt[semconv.ERROR_TYPE] == "CancelledError"
    assert attempt.status == "UNSET"
    assert root[semconv.FALLBACK] is False
    assert root[semconv.DRIVER_ID] == "d"
    (record,) = kernel.list_traces()
    assert root[semconv.ACTION_ID] == record.action_id


async def test_a_cancellation_in_the_fallback_leaves_the_first_attempts_error(
    capture: Capture,
) -> None:
    reached = asyncio.Event()
    kernel = make_kernel(failing("first", OSError("x")), stalling("second", reached))
    task = asyncio.create_task(invoke(kernel))
    await reached.wait()
    await cancel(task)
    root = check_cancelled(capture, semconv.INVOKE)
    first, second = root.named(semconv.DRIVER)
    assert (first[semconv.STATUS], second[semconv.STATUS]) == ("error", "cancelled")
    assert root[semconv.FALLBACK] is True


async def test_a_cancellation_after_a_deadline_leaves_the_first_attempts_time_out(
    capture: Capture,
) -> None:
    reached = asyncio.Event()
    kernel = make_kernel(stalling("first"), stalling("second", reached))
    task = asyncio.create_task(invoke(kernel, invoke_timeout_s=0.05))
    await reached.wait()
    await cancel(task)
    root = check_cancelled(capture, semconv.INVOKE)
    first, second = root.named(semconv.DRIVER)
    assert (first[semconv.STATUS], first[semconv.ERROR_TYPE]) == ("error", "TimeoutError")
    assert (second[semconv.STATUS], second[semconv.ERROR_TYPE]) == ("cancelled", "CancelledError")


async def test_a_wait_for_around_the_invocation_cancels_it(capture: Capture) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(invoke(make_kernel(stalling("d"))), 0.02)
    root = check_cancelled(capture, semconv.INVOKE)
    assert root.only(semconv.DRIVER)[semconv.STATUS] == "cancelled"


async def test_the_text_of_a_cancellation_reaches_the_caller(capture: Capture) -> None:
    reached = asyncio.Event()
    caught: list[BaseException] = []

    async def call() -> None:
        try:
            await invoke(make_kernel(stalling("d", reached)))
        except asyncio.CancelledError as error:
            caught.append(error)
            raise

    task = asyncio.create_task(call())
    await reached.wait()
    task.cancel("by the user")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert caught[0].args == ("by the user",)
    check_cancelled(capture, semconv.INVOKE)


async def test_a_task_cancelled_before_its_first_step_gives_nothing(capture: Capture) -> None:
    await cancel(asyncio.create_task(invoke(make_kernel())))
    assert not capture.spans()
    assert not capture.events()
