# SPDX-License-Identifier: Apache-2.0
"""The agent of ``tests/prometheus``, in a busy hour: all that it does, many times, and what it may not."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import weaver_kernel as wk
from weaver_kernel.models import CapabilityRequest

from tests.prometheus import agent

STRANGER = wk.Principal("agent-2", roles=["reader"])
ROUNDS = 6

# Kept, so that its gauges are there when metrics are collected.
KEPT: list[wk.Kernel] = []


async def misbehave() -> None:
    """Ask for what does not exist, for another's results and for results that are gone."""
    with suppress(wk.AgentKernelError):
        agent.token_for(agent.KERNEL, "orders.forget")
    frames = [
        await agent.call(agent.KERNEL, "orders.list", response_mode="handle_only") for _ in range(3)
    ]
    for frame, principal in ((frames[0], agent.AGENT), (frames[2], STRANGER)):
        with suppress(wk.AgentKernelError):
            agent.KERNEL.expand(frame.handle, query={"limit": 5}, principal=principal)


async def purge(operator: wk.Principal) -> None:
    """An operator is granted, and does, what destroys."""
    kernel = agent.KERNEL
    request = CapabilityRequest("orders.purge", goal="forget old orders")
    why = "the retention period of these orders is over"
    token = kernel.grant_capability(request, operator, justification=why).token
    await kernel.invoke(token, principal=operator, args={})


async def overspend() -> None:
    """Go on when the budget is spent, and long before."""
    with suppress(wk.BudgetExhausted):
        await agent.call(agent.BUDGETED, "orders.list")
    thrifty = agent.make_kernel(budget_manager=wk.BudgetManager(400, default_request=50))
    for _ in range(2):
        await agent.call(thrifty, "orders.list", response_mode="table")
    KEPT[:] = [thrifty]


async def work() -> None:
    """A round of everything that can be done again."""
    repeated = (agent.succeed, agent.refuse, agent.fail, agent.expand, agent.act_unseen)
    for _ in range(ROUNDS):
        # Principals who are new have no rate to be limited.
        agent.AGENT = wk.Principal(f"agent-{time.monotonic_ns()}", roles=["reader"])
        for act in (*repeated, misbehave, overspend):
            await act()
        await purge(wk.Principal(f"operator-{time.monotonic_ns()}", roles=["admin"]))


def main() -> None:
    crm: Any = vars(agent.KERNEL)["_drivers"]["memory"]
    crm.register_handler("orders.purge", lambda _: {"purged": 3})
    vars(agent)["work"] = work
    agent.main()


if __name__ == "__main__":
    main()
