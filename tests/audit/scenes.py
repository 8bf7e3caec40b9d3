# SPDX-License-Identifier: Apache-2.0
"""A kernel that does everything that it writes an audit record of."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from weaver_kernel import AgentKernelError, Kernel
from weaver_kernel.drivers.base import ExecutionContext

from agent_kernel_otel import semconv
from tests.support.instrumented import AsyncDriver, drain, open_stream, turns_until
from tests.support.kernels import (
    ALICE,
    WRITE,
    StreamingDriver,
    grant,
    make_kernel,
    memory_driver,
    token_of,
)


def kernel_with(store: Any, *drivers: Any, **collaborators: Any) -> Kernel:
    """A kernel that writes its audit records there."""
    return make_kernel(*drivers, trace_store=store, **collaborators)


async def succeed(store: Any) -> Any:
    """An invocation that is served."""
    kernel = kernel_with(store)
    return await kernel.invoke(token_of(kernel), principal=ALICE, args={}, response_mode="table")


async def fail(store: Any) -> None:
    """An invocation whose only driver fails."""

    def handler(_: Any) -> Any:
        raise RuntimeError("no")

    kernel = kernel_with(store, memory_driver("memory", handler))
    with suppress(AgentKernelError):
        await kernel.invoke(token_of(kernel), principal=ALICE, args={})


async def expand(store: Any) -> None:
    """An invocation, and the expansion of its handle."""
    kernel = kernel_with(store)
    frame = await kernel.invoke(token_of(kernel), principal=ALICE, args={}, response_mode="table")
    assert frame.handle is not None
    kernel.expand(frame.handle, query={"limit": 1}, principal=ALICE)


async def deny(store: Any) -> None:
    """A grant that is refused."""
    with suppress(AgentKernelError):
        grant(kernel_with(store), WRITE, ALICE)


async def cancel(store: Any) -> None:
    """An invocation that is cancelled while its driver runs."""
    reached = asyncio.Event()

    async def wait(_: ExecutionContext) -> Any:
        reached.set()
        await asyncio.Event().wait()

    kernel = kernel_with(store, AsyncDriver("waiting", wait))
    task = asyncio.ensure_future(kernel.invoke(token_of(kernel), principal=ALICE, args={}))
    await reached.wait()
    task.cancel()
    await turns_until(task.done)


async def stream(store: Any) -> None:
    """A stream to its end."""
    await drain(open_stream(kernel_with(store, StreamingDriver())))


async def stream_closed_early(store: Any) -> None:
    """A stream that is closed after its first frame, whose record comes late."""
    kernel = kernel_with(store, StreamingDriver())
    before = len(store.list_all())
    frames = open_stream(kernel)
    await anext(frames)
    await frames.aclose()
    await turns_until(lambda: len(store.list_all()) > before)


async def single_shot_stream(store: Any) -> None:
    """A stream of a driver that does not stream."""
    await drain(open_stream(kernel_with(store)))


SCENES = {
    scene.__name__: scene
    for scene in (
        succeed, fail, expand, deny, cancel, stream, stream_closed_early, single_shot_stream,
    )
}  # fmt: skip
"""Each with at least one audit record."""


def spans_of(action_id: str, spans: list[ReadableSpan]) -> list[ReadableSpan]:
    """The spans that tell of an action, live and replayed."""
    return [span for span in spans if (span.attributes or {}).get(semconv.ACTION_ID) == action_id]


def is_replayed(span: ReadableSpan) -> bool:
    return bool((span.attributes or {}).get(semconv.REPLAYED))
