# SPDX-License-Identifier: Apache-2.0
"""Drivers as the kernel sees them during an invocation: each attempt becomes a span."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from inspect import isasyncgen
from typing import Any

from agent_kernel_otel.current import Aside, come_back, context_of, set_current
from agent_kernel_otel.opentelemetry_api import attach, detach, set_span_in_context
from agent_kernel_otel.weaver.attempts import Attempt
from agent_kernel_otel.weaver.invocation import InvokeCall
from agent_kernel_otel.weaver.outcomes import IMPORT_NAMES
from agent_kernel_otel.weaver.propagation import run_as


def view_in_stream(call: InvokeCall, driver_id: Any, driver: Any) -> Any:
    """The view of a driver in a stream, of the kind that the kernel takes the driver itself for.

    Streams ask ``isinstance(driver, StreamingDriver)``. What the real driver answers decides the
    class of the view, which defines its methods on the class, so that every Python version
    answers the same for it: a proxy would turn streaming drivers into single-shot ones.
    """
    kind = StreamingDriverView if _streams(driver) else DriverView
    return kind(call, driver_id, driver)


class DriverView(Attempt):
    """A driver during an invocation, and the kernel's attempt of it.

    Args:
        call: The invocation.
        driver_id: Under which id the kernel looked it up.
        driver: The real driver.
    """

    __slots__ = ("_call", "_driver", "_tried_as")

    def __init__(self, call: InvokeCall, driver_id: Any, driver: Any) -> None:
        self._call = call
        self._tried_as = driver_id
        self._driver = driver

    def __getattr__(self, name: str) -> Any:
        if name == "execute_stream":
            # Up to Python 3.11 isinstance() looks here, and must find what the class says.
            raise AttributeError(name)
        return getattr(self._driver, name)

    @property
    def driver_id(self) -> Any:
        """The real driver's id."""
        return self._driver.driver_id

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        """One attempt, from its first step to its end."""
        call = self._call
        if call.recording and call.action_id is None:
            _note_action(call, args, kwargs)
        span = call.attempting(self, self._tried_as)
        driver = self._driver
        senders = call.instrumentation.senders
        try:
            # As Aside does it, in fewer steps, because this is run for every invocation.
            attached = None if span is None else attach(set_span_in_context(span))
            marker = set_current(None)
            try:
                if senders and call.telling:
                    driver = run_as(driver, senders)
                result = await driver.execute(*args, **kwargs)
            finally:
                if come_back(marker) and attached is not None:
                    detach(attached)
        except BaseException as error:
            call.attempted(self, error)
            raise
        call.attempted(self, None)
        return result


class StreamingDriverView(DriverView):
    """A driver that streams."""

    __slots__ = ()

    def execute_stream(self, *args: Any, **kwargs: Any) -> Any:
        """One attempt, from the call to the end of its chunks."""
        call = self._call
        _note_action(call, args, kwargs)
        span = call.attempting(self, self._tried_as)
        try:
            with Aside(context_of(span)):
                chunks = self._driver.execute_stream(*args, **kwargs)
        except BaseException as error:
            call.attempted(self, error)
            raise
        if not hasattr(chunks, "__aiter__"):
            # Not a stream: the kernel fails over it, with the error that it has for this.
            return chunks
        return _chunks_of_attempt(call, self, chunks)


async def _chunks_of_attempt(
    call: InvokeCall, attempt: Attempt, chunks: AsyncIterator[Any]
) -> AsyncIterator[Any]:
    """Pass the chunks on; the driver's span is current in each step, and never in between."""
    iterator = chunks.__aiter__()
    aside = Aside(context_of(attempt.span))
    while True:
        try:
            with aside:
                chunk = await iterator.__anext__()
        except StopAsyncIteration:
            call.attempted(attempt, None)
            return
        except BaseException as error:
            call.attempted(attempt, error)
            raise
        try:
            yield chunk
        except BaseException as error:
            # Nobody wants more: the driver did what it was asked to.
            try:
                if isinstance(error, GeneratorExit) and isasyncgen(iterator):
                    # The driver's own generator, in whose place this one was closed.
                    with aside:
                        await iterator.aclose()
            finally:
                call.attempted(attempt, None)
            raise


def _note_action(call: InvokeCall, args: Any, kwargs: Any) -> None:
    context = args[0] if args else kwargs.get("ctx")
    call.acts_as(getattr(context, "action_id", None))


def _streams(driver: Any) -> bool:
    """What the kernel's own check says of the real driver."""
    for name in IMPORT_NAMES:
        kind = getattr(sys.modules.get(f"{name}.drivers.base"), "StreamingDriver", None)
        if kind is not None:
            return isinstance(driver, kind)
    # A release that keeps its check elsewhere: what it checks for is this method.
    return callable(getattr(driver, "execute_stream", None))
