# SPDX-License-Identifier: Apache-2.0
"""A stream as one call: from its first step to whichever end it takes."""

from __future__ import annotations

import weakref
from asyncio import CancelledError
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

from agent_kernel_otel import semconv
from agent_kernel_otel.faults import faults

if TYPE_CHECKING:
    from agent_kernel_otel.weaver.invocation import InvokeCall


def traced_stream(frames: Any, begin: Callable[[], InvokeCall | None]) -> AsyncGenerator[Any, Any]:
    """Pass a stream on, as one call that is current in each step and never in between.

    It is a native generator, so that the event loop closes it, and with it the call, where the
    app abandons it. All that a caller may do to a generator reaches the kernel's.

    Args:
        frames: The kernel's stream, not started.
        begin: Opens the call; asked at the first step, so that a stream which is never iterated
            leaves nothing behind.

    Returns:
        The kernel's frames.
    """
    course = _Course()
    generator = _steps(frames, begin, course)
    course.generator = weakref.ref(generator)
    return generator


async def _steps(
    frames: Any, begin: Callable[[], InvokeCall | None], course: _Course
) -> AsyncGenerator[Any, Any]:
    call = course.begin(begin())
    advance = frames.__anext__()
    thrown = False
    try:
        while True:
            if call is not None:
                call.enter()
            try:
                frame = await advance
                if call is not None:
                    course.add(frame)
            except StopAsyncIteration:
                course.end("exhausted")
                return
            except BaseException as error:
                course.fail(error, thrown_in=thrown)
                raise
            finally:
                if call is not None:
                    call.leave()
            try:
                sent = yield frame
            except GeneratorExit:
                await _close(frames, call)
                course.end("abandoned" if course.is_let_go() else "closed")
                raise
            except BaseException as error:
                thrown = True
                advance = frames.athrow(error)
            else:
                thrown = False
                advance = frames.__anext__() if sent is None else frames.asend(sent)
    except BaseException as error:
        course.fail(error, thrown_in=thrown)
        raise


class _Course:
    """What one stream has come to; ends its call exactly once.

    A loop that is closed without shutting down its generators never runs what they would do at
    their end. The generator's frame then only lets go of this object, whose end is the call's.

    Attributes:
        generator: The stream that the app holds, as long as it does.
    """

    __slots__ = ("_call", "_last", "generator")

    def __init__(self) -> None:
        self.generator: weakref.ref[Any] | None = None
        self._call: InvokeCall | None = None
        self._last: Any = None

    def begin(self, call: InvokeCall | None) -> InvokeCall | None:
        """Take the first step, of a call or of nothing that is traced."""
        self._call = call
        return call

    def is_let_go(self) -> bool:
        """Whether the app has let go of the generator, and nobody but the event loop runs it.

        Weak references are cleared before a generator is finalised: one that was let go, and is
        closed for that reason, cannot be reached any more, and one that the app closes can.
        """
        return self.generator is not None and self.generator() is None

    def add(self, frame: Any) -> None:
        """Take note of a frame."""
        call = self._call
        if call is None:
            return
        try:
            if self._last is None:
                call.first_frame()
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

    def fail(self, error: BaseException, *, thrown_in: bool) -> None:
        """End the call with what the stream raised.

        Args:
            error: The exception.
            thrown_in: Whether it came from outside, and not out of the kernel.
        """
        if thrown_in and self.is_let_go():
            # A program that ends cancels the task in which the loop closes the generator.
            self.end("abandoned")
            return
        call, self._call = self._call, None
        if call is not None:
            # A step whose task is destroyed while it waits ends with GeneratorExit.
            cancelled = isinstance(error, (CancelledError, GeneratorExit))
            call.late[semconv.STREAM_END] = "cancelled" if cancelled else "failed"
            # What the consumer throws in, and what comes to pass after the last frame, is not
            # the firewall's fault.
            call.firewall_done = thrown_in or getattr(self._last, "is_final", False)
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
