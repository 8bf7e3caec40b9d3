# SPDX-License-Identifier: Apache-2.0
"""The demo: the busy agent of ``tests/dashboards``, for ever, with secrets wherever an app may have some.

By itself it works a round, waits and begins anew, until SIGTERM. With ``--told`` each line of its standard
input names a function, as in ``tests/prometheus/agent.py``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import weaver_kernel as wk
from weaver_kernel.drivers.base import ExecutionContext
from weaver_kernel.models import CapabilityRequest

from agent_kernel_otel import stats
from tests.dashboards.prometheus import agent as busy
from tests.prometheus import agent

SECRET = os.environ.get("DEMO_SECRET", "none-of-your-business")
"""What must not be in any backend; the place where it was is put before it."""


def secret(place: str) -> str:
    return f"{place}-{SECRET}"


def token_for(kernel: wk.Kernel, name: str) -> Any:
    request = CapabilityRequest(
        name, goal=secret("goal"), constraints={"note": secret("constraint")}
    )
    why = f"the customer asked for it: {secret('justification')}"
    return kernel.grant_capability(request, agent.AGENT, justification=why).token


async def call(kernel: wk.Kernel, name: str, **options: Any) -> Any:
    arguments = {"note": secret("argument"), "password": secret("password")}
    return await kernel.invoke(
        token_for(kernel, name), principal=agent.AGENT, args=arguments, **options
    )


def fail(ctx: ExecutionContext) -> None:
    raise wk.DriverError(
        f"refused by https://agent:{secret('address')}@crm.example: {secret('error')}"
    )


def plant() -> None:
    """Put secrets into what the agent says, and into what it is told."""
    agent.token_for, agent.call = token_for, call
    agent.ROWS[0]["note"] = secret("result")  # longer rows would be too much for the budgets
    for kernel in (agent.KERNEL, AUDITED):
        drivers: Any = vars(kernel)["_drivers"]
        for name in ("orders.fail", "orders.mail"):
            drivers["broken"].register_handler(name, fail)
        drivers["memory"].register_handler("orders.purge", lambda _: {"purged": 3})


def audited() -> wk.Kernel:
    """A kernel that writes down what it does, if there is a file to write it into."""
    path = os.environ.get("DEMO_AUDIT_FILE")
    return agent.make_kernel(trace_store=wk.JsonlTraceStore(path)) if path else agent.make_kernel()


async def leave_a_trail(kernel: wk.Kernel) -> None:
    """A success, a failure, a denial and an expansion."""
    frame = await call(kernel, "orders.list", response_mode="handle_only")
    kernel.expand(frame.handle, query={"limit": 1}, principal=agent.AGENT)
    with suppress(wk.AgentKernelError):
        await call(kernel, "orders.fail")
    with suppress(wk.PolicyDenied):
        token_for(kernel, "orders.purge")


def counted() -> str:
    """What was counted in this process, as JSON: metric, values of its attributes, number."""
    return json.dumps([[*series, number] for series, number in stats.snapshot().counts.items()])


async def once() -> None:
    """What cannot be done again: a budget is spent but once."""
    await agent.everything()


async def spend_slowly() -> None:
    """Some of a budget that is renewed when it is spent."""
    try:
        await call(PURSE[0], "orders.list", response_mode="table")
    except wk.BudgetExhausted:
        PURSE[0] = purse()


async def work() -> None:
    """All that can."""
    await busy.work()
    await spend_slowly()
    await leave_a_trail(AUDITED)


def work_for_ever() -> None:
    busy.ROUNDS = 1  # else a backend on one machine has too much to store
    heartbeat = os.environ.get("DEMO_HEARTBEAT")
    asyncio.run(once())
    while True:
        asyncio.run(work())
        if heartbeat:
            Path(heartbeat).touch()
        time.sleep(float(os.environ.get("DEMO_PAUSE", "15")))


def obey() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        told = line.strip()
        if told == "count":
            print(counted(), flush=True)
        else:
            asyncio.run(globals()[told]())
            print("done", flush=True)


def purse() -> wk.Kernel:
    return agent.make_kernel(budget_manager=wk.BudgetManager(10_000, default_request=50))


# Kept, so that their gauges are there when metrics are collected.
AUDITED = audited()
PURSE = [purse()]


def main() -> None:
    plant()
    if "--told" in sys.argv:
        obey()
    else:
        work_for_ever()


if __name__ == "__main__":
    main()
