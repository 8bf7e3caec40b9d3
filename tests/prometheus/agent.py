# SPDX-License-Identifier: Apache-2.0
"""An agent that does, when it is told to, whatever there is a metric of; it knows no telemetry.

Each line of its standard input names a function, and is answered with a line when that is done.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import weaver_kernel as wk
from opentelemetry import context, trace
from weaver_kernel.drivers.base import ExecutionContext
from weaver_kernel.models import CapabilityRequest, RawResult

AGENT = wk.Principal("agent-1", roles=["reader"])
ROWS = [{"id": number, "note": "write to a@example.com"} for number in range(30)]
CALLS = {
    "orders.list": ["memory"],
    "orders.mail": ["broken", "memory"],
    "orders.fail": ["broken"],
    "orders.wait": ["slow"],
    "orders.follow": ["streamer"],
}


class Slow:
    driver_id = "slow"

    def __init__(self) -> None:
        self.running = asyncio.Event()

    async def execute(self, ctx: ExecutionContext) -> RawResult:
        self.running.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")


class Streamer:
    driver_id = "streamer"

    async def execute(self, ctx: ExecutionContext) -> RawResult:
        return RawResult(ctx.capability_id, list(ROWS))

    async def execute_stream(self, ctx: ExecutionContext) -> AsyncIterator[dict[str, Any]]:
        for number in range(3):
            yield {"part": number}


NO_PURGING = wk.DeclarativePolicyEngine.from_dict(
    {
        "rules": [
            {"name": "no-purging", "match": {"safety_class": ["DESTRUCTIVE"]}, "action": "deny"},
            {"name": "readers", "match": {"roles": ["reader"]}, "action": "allow"},
        ]
    }
)


class FullDisk(wk.TraceStore):
    """A trace store that fails."""

    def record(self, trace: Any) -> None:
        raise OSError("no space left on device")


def make_kernel(**collaborators: Any) -> wk.Kernel:
    registry = wk.CapabilityRegistry()
    for name in CALLS:
        registry.register(wk.Capability(name, name, f"The capability {name}.", wk.SafetyClass.READ))
    registry.register(
        wk.Capability("orders.purge", "purge", "Deletes all.", wk.SafetyClass.DESTRUCTIVE)
    )
    kernel = wk.Kernel(
        registry,
        token_provider=wk.HMACTokenProvider(secret="the agent of the tests"),
        router=wk.StaticRouter(routes=dict(CALLS)),
        **collaborators,
    )
    memory = wk.InMemoryDriver("memory")
    for name in ("orders.list", "orders.mail"):
        memory.register_handler(name, lambda _: list(ROWS))
    # The broken one has no handler, and says so with a DriverError.
    for driver in (memory, wk.InMemoryDriver("broken"), Slow(), Streamer()):
        kernel.register_driver(driver)
    return kernel


# Kept, so that their gauges are there when metrics are collected.
KERNEL = make_kernel(handle_store=wk.HandleStore(max_entries=2, max_total_bytes=1_000_000))
BUDGETED = make_kernel(budget_manager=wk.BudgetManager(100, default_request=1))
UNPROVEN = make_kernel(trace_store=FullDisk())
RULED = make_kernel(policy=NO_PURGING)
FORGETFUL = make_kernel(trace_store=wk.TraceStore(max_entries=1))


def token_for(kernel: wk.Kernel, name: str) -> Any:
    request = CapabilityRequest(name, goal="see to the orders")
    return kernel.grant_capability(request, AGENT, justification="a customer asks").token


async def call(kernel: wk.Kernel, name: str, **options: Any) -> Any:
    return await kernel.invoke(token_for(kernel, name), principal=AGENT, args={}, **options)


async def succeed() -> None:
    """Calls that end well, one by one of each sort."""
    await call(KERNEL, "orders.list")
    await call(KERNEL, "orders.list", response_mode="table")  # redacted
    await call(KERNEL, "orders.list", response_mode="raw")  # downgraded: the agent is no admin
    await call(KERNEL, "orders.list", dry_run=True)
    await call(KERNEL, "orders.mail")  # the second driver serves
    token = token_for(KERNEL, "orders.follow")
    async for _ in KERNEL.invoke_stream(token, principal=AGENT, args={}):
        pass
    await call(FORGETFUL, "orders.list")
    await call(FORGETFUL, "orders.list")


async def refuse() -> None:
    """Refusals at the grant, by a rule and without, and of a token."""
    for kernel in (KERNEL, RULED):
        with suppress(wk.PolicyDenied):
            token_for(kernel, "orders.purge")
    token = token_for(KERNEL, "orders.list")
    provider: Any = vars(KERNEL)["_token_provider"]
    provider.revoke(token.token_id)
    with suppress(wk.AgentKernelError):
        await KERNEL.invoke(token, principal=AGENT, args={})


async def fail() -> None:
    """Calls that fail, are cancelled, or leave no proof."""
    with suppress(wk.AgentKernelError):
        await call(KERNEL, "orders.fail")
    slow: Any = vars(KERNEL)["_drivers"]["slow"]
    waiting = asyncio.ensure_future(call(KERNEL, "orders.wait"))
    await slow.running.wait()
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    with suppress(OSError, wk.AgentKernelError):
        await call(UNPROVEN, "orders.list")


async def spend() -> None:
    """A budget that is nearly, and then wholly, spent."""
    budget: Any = vars(BUDGETED)["_budget_manager"]
    await call(BUDGETED, "orders.list")
    await budget.record_usage(budget.remaining)
    with suppress(wk.BudgetExhausted):
        await call(BUDGETED, "orders.list")


async def expand() -> None:
    """Handles that are expanded, and that make room for others."""
    for _ in range(4):
        frame = await call(KERNEL, "orders.list", response_mode="handle_only")
    KERNEL.expand(frame.handle, query={"limit": 5}, principal=AGENT)


async def act_unseen() -> None:
    """A call of a caller whose trace is not sampled."""
    parent = trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=True))
    attached = context.attach(trace.set_span_in_context(parent))
    try:
        await call(KERNEL, "orders.list")
    finally:
        context.detach(attached)


async def everything() -> None:
    for act in (succeed, refuse, fail, spend, expand, act_unseen):
        await act()


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        asyncio.run(globals()[line.strip()]())
        print("done", flush=True)


if __name__ == "__main__":
    main()
