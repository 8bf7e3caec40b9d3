# SPDX-License-Identifier: Apache-2.0
"""More of what an app does with its kernel: whatever shows in the kernel's audit records."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.matrix.recording import Seen
from tests.matrix.scenes import SCENES, Scenes, ask, exhaust, framed, granted, raised, scene
from tests.matrix.world import AGENT, FEATURES, lib, make_kernel

AUDITED: Scenes = {
    # The one kernel that was made before the trace stores of this test.
    name: played
    for name, played in SCENES.items()
    if name != "invoke_on_early_kernel"
}
"""The scenes of the matrix, and those below."""

ADMIN = lib.Principal("agent-3", roles=["reader", "admin"], attributes={"tenant": "acme"})


class Echoing:
    """A driver that fails in the very words in which the kernel records a cancellation."""

    driver_id = "memory"

    async def execute(self, ctx: Any) -> Any:
        raise lib.DriverError("invocation cancelled")


class FailingFirewall(lib.Firewall):  # type: ignore[misc]
    def transform(self, *args: Any, **kwargs: Any) -> Any:
        raise ValueError("no such field")


class RefusingFirewall(lib.Firewall):  # type: ignore[misc]
    def transform(self, *args: Any, **kwargs: Any) -> Any:
        code = {"reason_code": "off_hours"} if FEATURES["reason_codes"] else {}
        raise lib.PolicyDenied("not at this hour", **code)


class FullStore:
    """A trace store that can hold no more."""

    def record(self, trace: Any) -> None:
        raise OSError("no space left on device")

    def list_all(self) -> list[Any]:
        return []


async def _served(mode: str, principal: Any = AGENT, **options: Any) -> Seen:
    kernel = make_kernel(**options)
    token = ask(kernel, "items.list", principal).token
    call = kernel.invoke(token, principal=principal, args={}, response_mode=mode)
    return framed(await call, token)


@scene(among=AUDITED)
async def invoke_summary() -> Seen:
    return await _served("summary")


@scene(among=AUDITED)
async def invoke_handle_only() -> Seen:
    return await _served("handle_only")


@scene(among=AUDITED)
async def invoke_raw_by_admin() -> Seen:
    return await _served("raw", ADMIN)


@scene("reason_codes", among=AUDITED)
async def invoke_granted_by_rule() -> Seen:
    rule = {"name": "readers", "match": {"safety_class": ["READ"]}, "action": "allow"}
    return await _served("summary", policy=lib.DeclarativePolicyEngine.from_dict({"rules": [rule]}))


async def _unserved(capability_id: str, **options: Any) -> Seen:
    kernel = make_kernel(**options)
    token = granted(kernel, capability_id)
    return {"raised": await raised(kernel.invoke(token, principal=AGENT, args={}))}


@scene(among=AUDITED)
async def invoke_driver_crashes() -> Seen:
    return await _unserved("crash.run")


@scene(among=AUDITED)
async def invoke_firewall_fails() -> Seen:
    return await _unserved("items.list", firewall=FailingFirewall())


@scene(among=AUDITED)
async def invoke_firewall_refuses() -> Seen:
    return await _unserved("items.list", firewall=RefusingFirewall())


@scene(among=AUDITED)
async def invoke_unwritten() -> Seen:
    return await _unserved("items.list", trace_store=FullStore())


@scene(among=AUDITED)
async def invoke_driver_speaks_of_cancellation() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "items.list")
    kernel._drivers["memory"] = Echoing()
    return {"raised": await raised(kernel.invoke(token, principal=AGENT, args={}))}


@scene("streams", among=AUDITED)
async def stream_raw_by_admin() -> Seen:
    kernel = make_kernel()
    token = ask(kernel, "stream.run", ADMIN).token
    frames = await exhaust(
        kernel.invoke_stream(token, principal=ADMIN, args={}, response_mode="raw")
    )
    return {"frames": len(frames)}


async def _stopped(capability_id: str) -> Seen:
    """A stream that is cancelled as soon as its driver waits."""
    kernel = make_kernel()
    token = granted(kernel, capability_id)
    stream = kernel.invoke_stream(token, principal=AGENT, args={})
    task = asyncio.ensure_future(exhaust(stream))
    await kernel._drivers["streamer"].stalled.wait()
    task.cancel()
    return {"raised": await raised(task)}


@scene("streams", among=AUDITED)
async def stream_cancelled() -> Seen:
    return await _stopped("stream.stall")


@scene("streams", among=AUDITED)
async def stream_cancelled_at_once() -> Seen:
    return await _stopped("stream.stall-at-once")


@scene("streams", among=AUDITED)
async def stream_failed_at_once() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "stream.fail-at-once")
    stream = kernel.invoke_stream(token, principal=AGENT, args={})
    return {"raised": await raised(exhaust(stream))}


@scene("streams", among=AUDITED)
async def stream_of_plain_driver_whose_firewall_fails() -> Seen:
    kernel = make_kernel(firewall=FailingFirewall())
    token = granted(kernel, "items.list")
    return {"raised": await raised(exhaust(kernel.invoke_stream(token, principal=AGENT, args={})))}


@scene("streams", among=AUDITED)
async def stream_abandoned_in_a_loop_that_dies() -> Seen:
    """The loop is closed without shutting down its generators, as some servers do."""
    kernel = make_kernel()
    token = granted(kernel, "stream.run")

    def leave() -> None:
        loop = asyncio.new_event_loop()
        stream = kernel.invoke_stream(token, principal=AGENT, args={})
        loop.run_until_complete(anext(stream))
        loop.close()

    await asyncio.to_thread(leave)
    return {}
