# SPDX-License-Identifier: Apache-2.0
"""A stream as one call: from its first step to whichever end it takes."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import AsyncGenerator, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from agent_kernel_otel import semconv
from agent_kernel_otel.faults import faults

if TYPE_CHECKING:
    from agent_kernel_otel.weaver.invocation import InvokeCall


async def traced_stream(
    frames: Any, begin: Callable[[], InvokeCall | None]
) -> AsyncGenerator[Any, Any]:
    """Pass a stream on, as one call that is current in each step and never in between.

    It is a native generator, so that the event loop closes it, and with it the call, where the
    app abandons it. All that a caller may do to a generator reaches the kernel's.

    Args:
        frames: The kernel's stream, not started.
        begin: Opens the call; asked at the first step, so that a stream which is never iterated
            leaves nothing behind.

    Yields:
        The kernel's frames.
    """
    call = begin()
    stream = _Stream(call)
    advance = frames.__anext__()
    try:
        while True:
            if call is not None:
                call.enter()
            try:
                frame = await advance
                if call is not None:
                    stream.add(frame)
            except StopAsyncIteration:
                stream.end("exhausted")
                return
            except BaseException as error:
                stream.fail(error)
                raise
            finally:
                if call is not None:
                    call.leave()
            try:
                sent = yield frame
            except GeneratorExit:
                await _close(frames, call)
                stream.end("abandoned" if _closed_by_the_loop() else "closed")
                raise
            except BaseException as error:
                advance = frames.athrow(error)
            else:
                advance = frames.__anext__() if sent is None else frames.asend(sent)
    finally:
        # Whatever came to pass, also a failure to close: the call does not stay open.
        stream.end("closed")


class _Stream:
    """What one stream has come to; ends its call exactly once.

    A loop that is closed without shutting down its generators never runs their ``finally``. The
    generator's frame then only lets go of this object, whose end is the call's end.

    Args:
        call: The call; ``None`` where nothing is traced.
    """

    __slots__ = ("_call", "_last", "_started")

    def __init__(self, call: InvokeCall | None) -> None:
        self._call = call
        self._last: Any = None
        self._started = monotonic()

    def add(self, frame: Any) -> None:
        """Take note of a frame."""
        call = self._call
        if call is None or not call.recording:
            return
        try:
            if self._last is None:
                elapsed = (monotonic() - self._started) * 1000.0
                call.late[semconv.TIME_TO_FIRST_CHUNK] = elapsed
            self._last = frame
            call.add_frame(frame)
        except Exception:
            faults.swallow("reading a stream's frame")

    def end(self, how: str) -> None:
        """End the call as a success."""
        call, self._call = self._call, None
        if call is not None:
            call.late[semconv.STREAM_END] = how
            call.finish(self._last)

    def fail(self, error: BaseException) -> None:
        """End the call with what the stream raised."""
        call, self._call = self._call, None
        if call is not None:
            # A step whose task is destroyed while it waits ends with GeneratorExit.
            cancelled = isinstance(error, (CancelledError, GeneratorExit))
            call.late[semconv.STREAM_END] = "cancelled" if cancelled else "failed"
            call.finish(error=error)

    def __del__(self) -> None:
        self.end("abandoned")


async def _close(frames: Any, call: InvokeCall | None) -> None:
    """Close the kernel's stream with the call current: its late audit record then finds it."""
    close = getattr(frames, "aclose", None)
    if close is None:
        return
    if call is None:
        await close()
        return
    call.enter()
    try:
        await close()
    finally:
        call.leave()


def _closed_by_the_loop() -> bool:
    """Whether the event loop closes the generator, because the app has let go of it.

    The loop then runs ``aclose()`` itself as a task, where an app would await it in one.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and type(task.get_coro()).__name__ == "async_generator_athrow"
