# SPDX-License-Identifier: Apache-2.0
"""Streams that fail: whose fault it was, and what the caller gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from weaver_kernel import DriverError, Firewall, Frame

from agent_kernel_otel import semconv
from tests.support.capture import Capture, Node
from tests.support.instrumented import AsyncDriver, drain, open_stream
from tests.support.kernels import StreamingDriver, make_kernel


def failed(capture: Capture) -> Node:
    """The one stream's span, of a stream that failed."""
    invoke = capture.root(semconv.INVOKE)
    assert invoke[semconv.STREAM_END] == "failed"
    assert invoke[semconv.STATUS] == "error"
    assert invoke.status == "ERROR"
    return invoke


@pytest.mark.parametrize("failing_chunk", [0, 1, 2])
async def test_a_driver_that_fails_mid_stream_fails_the_stream_and_not_the_firewall(
    capture: Capture, failing_chunk: int
) -> None:
    error = ConnectionResetError("lost")

    def before_chunk(number: int) -> None:
        if number == failing_chunk:
            raise error

    stream = open_stream(make_kernel(StreamingDriver(before_chunk=before_chunk)))
    with pytest.raises(ConnectionResetError) as raised:
        await drain(stream)
    assert raised.value is error
    assert error.__cause__ is None
    invoke = failed(capture)
    assert invoke[semconv.ERROR_TYPE] == "ConnectionResetError"
    attempt, firewall = invoke.only(semconv.DRIVER), invoke.only(semconv.FIREWALL)
    assert attempt[semconv.STATUS] == "error"
    assert attempt[semconv.ERROR_TYPE] == "ConnectionResetError"
    assert attempt.status == "ERROR"
    assert firewall.status == "UNSET"
    assert firewall.get(semconv.ERROR_TYPE) is None
    (event,) = capture.events()
    assert event.name == semconv.INVOKE_EXCEPTION
    assert event.attributes[semconv.EXCEPTION_TYPE] == "builtins.ConnectionResetError"


async def test_a_driver_whose_stream_cannot_be_opened_fails_the_stream(capture: Capture) -> None:
    class Driver(StreamingDriver):
        def execute_stream(self, ctx: Any) -> AsyncIterator[dict[str, Any]]:
            raise OSError("no route")

    with pytest.raises(OSError, match="no route"):
        await drain(open_stream(make_kernel(Driver())))
    invoke = failed(capture)
    assert invoke.only(semconv.DRIVER).status == "ERROR"
    assert invoke.only(semconv.FIREWALL).status == "UNSET"


class FailingFirewall(Firewall):
    """Fails at one of the chunks."""

    def __init__(self, failing: int, error: Exception) -> None:
        super().__init__()
        self.left = failing
        self.error = error

    def transform(self, *args: Any, **kwargs: Any) -> Frame:
        if self.left == 0:
            raise self.error
        self.left -= 1
        return super().transform(*args, **kwargs)


@pytest.mark.parametrize("failing_frame", [0, 2, 3])
async def test_a_firewall_that_fails_mid_stream_fails_the_stream_and_not_the_driver(
    capture: Capture, failing_frame: int
) -> None:
    error = ValueError("not a table")
    kernel = make_kernel(StreamingDriver(), firewall=FailingFirewall(failing_frame, error))
    with pytest.raises(ValueError, match="not a table") as raised:
        await drain(open_stream(kernel))
    assert raised.value is error
    invoke = failed(capture)
    firewall, attempt = invoke.only(semconv.FIREWALL), invoke.only(semconv.DRIVER)
    assert firewall.status == "ERROR"
    assert firewall[semconv.ERROR_TYPE] == "ValueError"
    assert attempt.status == "UNSET"
    assert attempt[semconv.STATUS] == "success"


async def test_a_trace_store_that_fails_after_the_last_frame_is_not_the_firewalls_fault(
    capture: Capture,
) -> None:
    class Full:
        def record(self, _: object) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await drain(open_stream(make_kernel(StreamingDriver(), trace_store=Full())))
    invoke = failed(capture)
    assert invoke[semconv.ERROR_TYPE] == "OSError"
    assert invoke.only(semconv.DRIVER).status == "UNSET"
    assert invoke.only(semconv.FIREWALL).status == "UNSET"


@pytest.mark.parametrize("stalled_chunk", [0, 1])
async def test_a_stream_past_its_deadline_fails_with_the_attempt_timed_out(
    capture: Capture, stalled_chunk: int
) -> None:
    driver = StreamingDriver(
        before_chunk=lambda number: asyncio.Event().wait() if number == stalled_chunk else None
    )
    stream = open_stream(make_kernel(driver), constraints={"invoke_timeout_s": 0.02})
    with pytest.raises(DriverError, match="timed out") as raised:
        await drain(stream)
    assert isinstance(raised.value.__cause__, asyncio.TimeoutError)
    invoke = failed(capture)
    assert invoke[semconv.ERROR_TYPE] == "DriverError"
    attempt = invoke.only(semconv.DRIVER)
    assert attempt[semconv.STATUS] == "error"
    assert attempt[semconv.ERROR_TYPE] == "TimeoutError"
    assert attempt.status == "ERROR"
    assert invoke.only(semconv.FIREWALL).status == "UNSET"
    assert len(capture.events()) == 1
    assert driver.closed


async def test_a_single_shot_stream_past_its_deadline_fails_with_the_attempt_timed_out(
    capture: Capture,
) -> None:
    async def run(_: object) -> None:
        await asyncio.Event().wait()

    kernel = make_kernel(AsyncDriver("slow", run))
    with pytest.raises(DriverError, match="timed out"):
        await drain(open_stream(kernel, constraints={"invoke_timeout_s": 0.02}))
    attempt = failed(capture).only(semconv.DRIVER)
    assert attempt[semconv.ERROR_TYPE] == "TimeoutError"
    assert attempt.status == "ERROR"


@pytest.mark.parametrize("nothing", [None, 3], ids=repr)
async def test_a_firewall_that_gives_no_stream_fails_with_the_same_error_as_without_us(
    capture: Capture, nothing: object
) -> None:
    class Broken(Firewall):
        def apply_stream(self, *args: Any, **kwargs: Any) -> Any:
            return nothing

    with pytest.raises(TypeError, match="'async for' requires an object with __aiter__"):
        await drain(open_stream(make_kernel(StreamingDriver(), firewall=Broken())))
    failed(capture)


async def test_a_driver_that_gives_no_stream_fails_with_the_same_error_as_without_us(
    capture: Capture,
) -> None:
    class Broken(StreamingDriver):
        def execute_stream(self, ctx: Any) -> Any:
            return None

    with pytest.raises(TypeError, match="'NoneType' object is not an async iterable"):
        await drain(open_stream(make_kernel(Broken())))
    failed(capture)
