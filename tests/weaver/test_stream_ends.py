# SPDX-License-Identifier: Apache-2.0
"""How streams end: each end closes the one span once, and says what came to pass."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry import trace
from weaver_kernel import Frame, Kernel

from agent_kernel_otel import semconv
from tests.support.capture import Capture, Node
from tests.support.instrumented import drain, instrumented, open_stream, turns_until
from tests.support.kernels import READ, StreamingDriver, make_kernel


def ended(capture: Capture, how: str, status: str = "success") -> Node:
    """The one stream's span, with that end; its driver and firewall as in a success."""
    invoke = capture.root(semconv.INVOKE)
    assert invoke[semconv.STREAM_END] == how
    assert invoke[semconv.STATUS] == status
    return invoke


def undisturbed(invoke: Node) -> None:
    """Driver and firewall did what they were asked to."""
    assert invoke.status == "UNSET"
    driver, firewall = invoke.only(semconv.DRIVER), invoke.only(semconv.FIREWALL)
    assert driver[semconv.STATUS] == "success"
    for child in (driver, firewall):
        assert child.status == "UNSET"
        assert child.get(semconv.ERROR_TYPE) is None


# Closed, abandoned, never begun ---------------------------------------------------------------


async def test_a_stream_closed_early_is_a_success(capture: Capture) -> None:
    driver = StreamingDriver()
    stream = open_stream(make_kernel(driver))
    async for _ in stream:
        break
    await stream.aclose()
    invoke = ended(capture, "closed")
    undisturbed(invoke)
    assert invoke.get(semconv.ERROR_TYPE) is None
    assert invoke[semconv.RESPONSE_MODE] == "summary"
    assert not capture.events()
    await turns_until(lambda: driver.closed)


async def test_aclosing_closes_the_stream(capture: Capture) -> None:
    driver = StreamingDriver()
    async with contextlib.aclosing(open_stream(make_kernel(driver))) as stream:
        async for _ in stream:
            break
    undisturbed(ended(capture, "closed"))
    await turns_until(lambda: driver.closed)


async def test_streams_closed_by_tasks_of_the_app_are_closed_and_not_abandoned(
    capture: Capture,
) -> None:
    streams = [open_stream(make_kernel(StreamingDriver())) for _ in range(2)]
    for stream in streams:
        await anext(stream)
    await asyncio.gather(*(stream.aclose() for stream in streams))
    assert [root[semconv.STREAM_END] for root in capture.roots()] == ["closed", "closed"]


async def test_a_stream_closed_twice_ends_once(capture: Capture) -> None:
    stream = open_stream(make_kernel(StreamingDriver()))
    await anext(stream)
    await stream.aclose()
    await stream.aclose()
    assert await drain(stream) == []
    ended(capture, "closed")


async def test_a_stream_left_by_break_is_abandoned(capture: Capture) -> None:
    driver = StreamingDriver()
    async for _ in open_stream(make_kernel(driver)):
        break
    gc.collect()
    await turns_until(lambda: driver.closed)
    undisturbed(ended(capture, "abandoned"))
    assert not capture.events()


async def test_a_stream_whose_consumer_raises_is_abandoned(capture: Capture) -> None:
    driver = StreamingDriver()

    async def consume() -> None:
        async for _ in open_stream(make_kernel(driver)):
            raise LookupError("the consumer's own")

    with pytest.raises(LookupError):
        await consume()
    gc.collect()
    await turns_until(lambda: driver.closed)
    undisturbed(ended(capture, "abandoned"))


async def test_a_stream_whose_consumer_is_cancelled_between_chunks_is_abandoned(
    capture: Capture,
) -> None:
    driver = StreamingDriver()
    waiting = asyncio.Event()

    async def consume() -> None:
        async for _ in open_stream(make_kernel(driver)):
            waiting.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(consume())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    gc.collect()
    await turns_until(lambda: driver.closed)
    undisturbed(ended(capture, "abandoned"))


def test_a_break_at_the_very_end_of_the_program_is_abandoned_and_not_cancelled(
    capture: Capture,
) -> None:
    driver = StreamingDriver()

    async def main() -> None:
        async for _ in open_stream(make_kernel(driver)):
            break

    asyncio.run(main())
    undisturbed(ended(capture, "abandoned"))


def test_a_loop_that_shuts_down_its_generators_closes_the_stream(capture: Capture) -> None:
    driver = StreamingDriver()
    kept: list[Any] = []

    async def main() -> None:
        kept.append(open_stream(make_kernel(driver)))
        await anext(kept[0])

    asyncio.run(main())
    undisturbed(ended(capture, "closed"))
    assert driver.closed


def test_a_loop_closed_without_shutting_down_its_generators_still_ends_the_span(
    capture: Capture,
) -> None:
    loop = asyncio.new_event_loop()
    streams = [open_stream(make_kernel(StreamingDriver()))]

    async def step() -> None:
        await anext(streams[0])

    loop.run_until_complete(step())
    loop.close()
    assert capture.open_spans()
    streams.clear()
    gc.collect()
    undisturbed(ended(capture, "abandoned"))


def test_a_stream_stepped_without_any_event_loop_is_abandoned_to_the_collector(
    capture: Capture,
) -> None:
    driver = StreamingDriver()
    stream = open_stream(make_kernel(driver))
    with pytest.raises(StopIteration):
        stream.__anext__().send(None)
    del stream
    gc.collect()
    undisturbed(ended(capture, "abandoned"))
    assert driver.closed


async def test_a_stream_in_a_reference_cycle_is_abandoned(capture: Capture) -> None:
    driver = StreamingDriver()

    class Reader:
        def __init__(self) -> None:
            self.stream = open_stream(make_kernel(driver))
            self.itself = self

    reader = Reader()
    await anext(reader.stream)
    del reader
    gc.collect()
    await turns_until(lambda: driver.closed)
    undisturbed(ended(capture, "abandoned"))


async def test_a_stream_never_iterated_emits_nothing(capture: Capture) -> None:
    kernel = make_kernel(StreamingDriver())
    stream = open_stream(kernel)
    await stream.aclose()
    del stream
    open_stream(kernel)
    gc.collect()
    assert not capture.spans()
    assert not capture.open_spans()
    assert not capture.events()


async def test_abandoned_streams_leave_no_span_current_and_no_view_behind(
    capture: Capture,
) -> None:
    driver = StreamingDriver()
    kernel = make_kernel(driver)
    async for _ in open_stream(kernel):
        break
    await turns_until(lambda: driver.closed)
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert kernel._drivers is vars(kernel)["_drivers"]


# Cancelled ------------------------------------------------------------------------------------


@pytest.mark.parametrize("constraints", [{}, {"invoke_timeout_s": 30.0}])
async def test_a_stream_cancelled_while_its_driver_waits_is_cancelled(
    capture: Capture, constraints: dict[str, Any]
) -> None:
    waiting = asyncio.Event()

    def before_chunk(number: int) -> Any:
        if number == 0:
            return None
        waiting.set()
        return asyncio.Event().wait()

    driver = StreamingDriver(before_chunk=before_chunk)
    task = asyncio.create_task(drain(open_stream(make_kernel(driver), constraints=constraints)))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    invoke = ended(capture, "cancelled", "cancelled")
    assert invoke.status == "UNSET"
    assert invoke[semconv.ERROR_TYPE] == "CancelledError"
    attempt = invoke.only(semconv.DRIVER)
    assert attempt[semconv.STATUS] == "cancelled"
    assert attempt[semconv.ERROR_TYPE] == "CancelledError"
    assert attempt.status == "UNSET"
    assert invoke.only(semconv.FIREWALL).status == "UNSET"
    assert not capture.events()
    assert driver.closed


# What the consumer does to the generator ------------------------------------------------------


async def test_an_exception_thrown_in_by_the_consumer_is_nobodys_fault_but_its_own(
    capture: Capture,
) -> None:
    driver = StreamingDriver()
    stream = open_stream(make_kernel(driver))
    await anext(stream)
    error = LookupError("thrown in")
    with pytest.raises(LookupError) as raised:
        await stream.athrow(error)
    assert raised.value is error
    assert error.__cause__ is error.__context__ is None
    invoke = ended(capture, "failed", "error")
    assert invoke[semconv.ERROR_TYPE] == "LookupError"
    for child in (invoke.only(semconv.DRIVER), invoke.only(semconv.FIREWALL)):
        assert child.status == "UNSET"
        assert child.get(semconv.ERROR_TYPE) is None
    assert len(capture.events()) == 1
    await turns_until(lambda: driver.closed)


async def test_what_the_consumer_sends_and_throws_reaches_the_generator_below_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    got: list[Any] = []
    thrown = LookupError("thrown in")

    async def talking(self: Kernel, *_: Any, **__: Any) -> AsyncIterator[Any]:
        try:
            got.append((yield Frame("a1", READ, "summary")))
        except LookupError as error:
            got.append(error)
        got.append((yield Frame("a1", READ, "summary")))

    monkeypatch.setattr(Kernel, "invoke_stream", talking)
    with instrumented() as capture:
        stream = open_stream(make_kernel(StreamingDriver()))
        await anext(stream)
        await stream.athrow(thrown)
        with pytest.raises(StopAsyncIteration):
            await stream.asend("hello")
        assert got == [thrown, "hello"]
        ended(capture, "exhausted")


async def test_a_generator_that_fails_to_close_fails_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def stubborn(self: Kernel, *_: Any, **__: Any) -> AsyncIterator[Any]:
        try:
            yield Frame("a1", READ, "summary")
        finally:
            raise OSError("cannot close")

    monkeypatch.setattr(Kernel, "invoke_stream", stubborn)
    with instrumented() as capture:
        stream = open_stream(make_kernel(StreamingDriver()))
        await anext(stream)
        with pytest.raises(OSError, match="cannot close"):
            await stream.aclose()
        assert ended(capture, "failed", "error")[semconv.ERROR_TYPE] == "OSError"
