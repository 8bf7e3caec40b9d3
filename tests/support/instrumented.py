# SPDX-License-Identifier: Apache-2.0
"""Kernels instrumented with settings of a test's own, and drivers that do what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from opentelemetry.sdk.trace.sampling import Sampler
from weaver_kernel import Frame, Kernel
from weaver_kernel.drivers.base import ExecutionContext
from weaver_kernel.models import RawResult

from agent_kernel_otel import KernelInstrumentor
from tests.support.capture import Capture
from tests.support.kernels import ALICE, READ, token_of


@contextmanager
def instrumented(sampler: Sampler | None = None, **settings: Any) -> Iterator[Capture]:
    """Every kernel instrumented by these settings; checked against semconv at the end."""
    captured = Capture(sampler)
    KernelInstrumentor().instrument(**captured.providers, **settings)
    try:
        yield captured
    finally:
        KernelInstrumentor().uninstrument()
    captured.check()


class AsyncDriver:
    """A single-shot driver whose execution is an async function of the test's."""

    def __init__(self, driver_id: str, run: Callable[[ExecutionContext], Awaitable[Any]]) -> None:
        self.driver_id = driver_id
        self.run = run

    async def execute(self, ctx: ExecutionContext) -> RawResult:
        return RawResult(capability_id=ctx.capability_id, data=await self.run(ctx))


async def drain(stream: AsyncIterator[Frame]) -> list[Frame]:
    """All frames of a stream."""
    return [frame async for frame in stream]


async def turns_until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until something holds, which must not take long."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the event loop turned a thousand times and it does not hold")


def open_stream(kernel: Kernel, **options: Any) -> AsyncGenerator[Frame, Any]:
    """A stream over :data:`READ`, not started; ``constraints`` go into its token."""
    principal = options.pop("principal", ALICE)
    constraints = options.pop("constraints", {})
    token = options.pop("token", None) or token_of(kernel, READ, principal, **constraints)
    stream: Any = kernel.invoke_stream(token, principal=principal, args={}, **options)
    return cast("AsyncGenerator[Frame, Any]", stream)
