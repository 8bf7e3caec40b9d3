# SPDX-License-Identifier: Apache-2.0
"""Agents at work behind a Weaver kernel, so many that a gateway has something to decide; no telemetry.

The capabilities and drivers are those of ``examples/tour.py``, and a slow one. What came of it is printed
at the end, as the agents themselves have seen it: a JSON object that counts outcomes.

    python tests/gateway/agents.py TURNS LONG_CALLS
"""

from __future__ import annotations

import asyncio
import itertools
import json
import runpy
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import weaver_kernel as wk
from opentelemetry import trace
from weaver_kernel.drivers.base import ExecutionContext
from weaver_kernel.models import CapabilityRequest, PolicyDecision, RawResult

TOUR = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "tour.py"))
ADDED = [
    wk.Capability("stock.get", "Get stock", "How many there are.", wk.SafetyClass.READ),
    wk.Capability("report.make", "Make report", "Takes its time.", wk.SafetyClass.READ),
    wk.Capability("mail.fetch", "Fetch mail", "From a server that is down.", wk.SafetyClass.READ),
]
LONG_CALLS = (2.4, 3.0, 4.5)
"""How long they take, in seconds."""
WHY = "the customer asked for it in a ticket"
SEEN: Counter[str] = Counter()
_numbers = itertools.count()
_tracer = trace.get_tracer("an.agent.framework")


class Slow:
    driver_id = "slow"

    def __init__(self) -> None:
        self.running = asyncio.Event()

    async def execute(self, ctx: ExecutionContext) -> RawResult:
        self.running.set()
        await asyncio.sleep(float(ctx.args["seconds"]))
        if ctx.args.get("fails"):
            raise wk.DriverError("the report cannot be made")
        return RawResult(ctx.capability_id, {"done": True})


class Hesitant:
    """A policy engine that returns what it should raise."""

    def evaluate(self, *args: Any, **kwargs: Any) -> PolicyDecision:
        return PolicyDecision(allowed=False, reason="better not")


class World:
    """A kernel and who may do what with it."""

    def __init__(self, **collaborators: Any) -> None:
        registry = wk.CapabilityRegistry()
        for capability in (*TOUR["CAPABILITIES"], *ADDED):
            registry.register(capability)
        self.tokens = wk.HMACTokenProvider(secret="for this load only")
        routes = {
            "mail.send": ["mail-1", "mail-2"],
            "mail.fetch": ["mail-1"],
            "answers.draft": ["writer"],
            "report.make": ["slow"],
        }
        self.kernel = wk.Kernel(
            registry,
            token_provider=self.tokens,
            router=wk.StaticRouter(routes, fallback=["crm"]),
            **collaborators,
        )
        self.slow = Slow()
        driver = TOUR["memory_driver"]
        crm = driver(
            "crm",
            orders__list=TOUR["list_orders"],
            customers__get=TOUR["get_customer"],
            customers__delete=lambda _: {"deleted": 7},
            stock__get=lambda _: {"left": 3},
        )
        down, up = TOUR["refuse_mail"], TOUR["send_mail"]
        mail = (
            driver("mail-1", mail__send=down, mail__fetch=down),
            driver("mail-2", mail__send=up),
        )
        for each in (crm, *mail, TOUR["Writer"](), self.slow):
            self.kernel.register_driver(each)

    @staticmethod
    def principal(*roles: str) -> wk.Principal:
        """A new one, who has no rate to be limited."""
        return wk.Principal(
            f"agent-{next(_numbers)}",
            roles=list(roles or ("reader", "writer")),
            attributes={"tenant": "a"},
        )

    def grant(self, who: wk.Principal, capability_id: str) -> wk.CapabilityToken:
        SEEN["grants"] += 1
        return self.kernel.get_token(
            CapabilityRequest(capability_id, goal="answer the ticket"), who, justification=WHY
        )

    async def call(self, who: wk.Principal, token: Any, **options: Any) -> Any:
        SEEN["calls"] += 1
        args = options.pop("args", {})
        return await self.kernel.invoke(token, principal=who, args=args, **options)

    async def grant_and_call(self, capability_id: str, *roles: str, **options: Any) -> Any:
        who = self.principal(*roles)
        return await self.call(who, self.grant(who, capability_id), **options)


async def plain_turn(world: World) -> None:
    """Two calls that end well, in one trace with their grant: nobody's business."""
    with _tracer.start_as_current_span("turn"):
        who = world.principal()
        token = world.grant(who, "stock.get")
        for _ in range(2):
            await world.call(who, token)


async def lone_calls(world: World) -> None:
    """A grant and calls that use it, each in a trace of its own; the grant is part of a login or not."""
    who = world.principal()
    if next(_numbers) % 2:
        token = world.grant(who, "stock.get")
    else:
        with _tracer.start_as_current_span("login"):
            token = world.grant(who, "stock.get")
    for _ in range(8):
        await world.call(who, token)


async def denied_turn(world: World) -> None:
    """Something else goes well first, so that the head of the trace does not tell."""
    with _tracer.start_as_current_span("turn"):
        await world.grant_and_call("stock.get")
        await denied(world)


async def denied(world: World) -> None:
    try:
        world.grant(world.principal("reader"), "customers.delete")
    except wk.PolicyDenied:
        SEEN["denied"] += 1


async def hesitated(world: World) -> None:
    other = World(policy=Hesitant())
    other.grant(other.principal(), "stock.get")
    SEEN["not allowed"] += 1


async def revoked(world: World) -> None:
    """Refused at the enforcement: of a call, and of a dry run."""
    who = world.principal()
    token = world.grant(who, "stock.get")
    world.tokens.revoke(token.token_id)
    for is_dry_run in (False, True):
        with suppress(wk.TokenRevoked):
            await world.call(who, token, dry_run=is_dry_run)
        SEEN["denied"] += 1


async def failed(world: World) -> None:
    try:
        await world.grant_and_call("mail.fetch")
    except wk.AgentKernelError:
        SEEN["error"] += 1


async def cancelled(world: World) -> None:
    world.slow.running.clear()
    call = asyncio.ensure_future(world.grant_and_call("report.make", args={"seconds": 60}))
    await world.slow.running.wait()
    call.cancel()
    try:
        await call
    except asyncio.CancelledError:
        SEEN["cancelled"] += 1


async def fell_back(world: World) -> None:
    await world.grant_and_call("mail.send")
    SEEN["fallback"] += 1


async def redacted(world: World) -> None:
    await world.grant_and_call("customers.get", response_mode="table")
    SEEN["redacted"] += 1


async def downgraded(world: World) -> None:
    await world.grant_and_call("stock.get", response_mode="raw")
    SEEN["downgraded"] += 1


async def destroyed(world: World) -> None:
    await world.grant_and_call("customers.delete", "admin")
    SEEN["destructive"] += 1


async def streamed(world: World) -> None:
    who = world.principal()
    token = world.grant(who, "answers.draft")
    async for _ in world.kernel.invoke_stream(token, principal=who, args={}):
        pass
    SEEN["calls"] += 1


async def dry_run(world: World) -> None:
    await world.grant_and_call("stock.get", dry_run=True)
    SEEN["dry runs"] += 1


async def long_call(world: World, number: int) -> None:
    """Every third fails, at its end; every second is a part of a turn."""
    seconds = LONG_CALLS[number % len(LONG_CALLS)]
    arguments = {"seconds": seconds, "fails": number % 3 == 0}
    try:
        if number % 2:
            with _tracer.start_as_current_span("turn"):
                await world.grant_and_call("report.make", args=arguments)
        else:
            await world.grant_and_call("report.make", args=arguments)
    except wk.AgentKernelError:
        SEEN["error"] += 1
    SEEN["slow"] += 1


RARE: tuple[Callable[[World], Coroutine[Any, Any, None]], ...] = (
    *(denied_turn, denied, hesitated, revoked, failed, cancelled, fell_back, redacted),
    *(downgraded, destroyed, streamed, dry_run),
)


async def work(turns: int, long_calls: int) -> None:
    """Nine turns of ten are plain; of the rest each kind has its turn."""
    world = World()
    rare = itertools.cycle(RARE)
    waiting: list[asyncio.Task[None]] = []
    for number in range(turns):
        if long_calls and number % max(1, turns // long_calls) == 0 and len(waiting) < long_calls:
            waiting.append(asyncio.create_task(long_call(World(), len(waiting))))
        if number % 10 == 9:
            await next(rare)(world)
        else:
            await (lone_calls if number % 10 == 4 else plain_turn)(world)
        # No faster than telemetry is sent, so that none is dropped.
        await asyncio.sleep(0.002)
    await asyncio.gather(*waiting)


if __name__ == "__main__":
    asyncio.run(work(*map(int, sys.argv[1:])))
    print(json.dumps(SEEN))
