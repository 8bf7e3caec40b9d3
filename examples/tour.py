# SPDX-License-Identifier: Apache-2.0
"""A support agent's few minutes at work behind a Weaver kernel.

Nothing here knows of telemetry. Run it bare, and it prints what the agent got:

    python examples/tour.py

Run it under OpenTelemetry, and every line below becomes a trace:

    agent-kernel-otel console -- opentelemetry-instrument python examples/tour.py
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from weaver_kernel import (
    BudgetManager,
    Capability,
    CapabilityRegistry,
    CapabilityToken,
    DriverError,
    ExecutionContext,
    HMACTokenProvider,
    InMemoryDriver,
    Kernel,
    PolicyDenied,
    Principal,
    RawResult,
    SafetyClass,
    SensitivityTag,
    StaticRouter,
    TokenRevoked,
)
from weaver_kernel.models import CapabilityRequest

AGENT = Principal("support-agent", roles=["reader", "writer"], attributes={"tenant": "acme"})

CAPABILITIES = [
    Capability(
        "orders.list",
        "List orders",
        "All orders of a customer.",
        SafetyClass.READ,
    ),
    Capability(
        "customers.get",
        "Get customer",
        "A customer's record.",
        SafetyClass.READ,
        SensitivityTag.PII,
        allowed_fields=["id", "plan", "note"],
    ),
    Capability(
        "mail.send",
        "Send mail",
        "Mails the customer.",
        SafetyClass.WRITE,
    ),
    Capability(
        "customers.delete",
        "Delete customer",
        "Deletes a customer for good.",
        SafetyClass.DESTRUCTIVE,
    ),
    Capability(
        "answers.draft",
        "Draft answer",
        "Drafts an answer, piece by piece.",
        SafetyClass.READ,
    ),
]


class Writer:
    """A streaming driver: it hands out the draft as it grows."""

    driver_id = "writer"

    async def execute(self, ctx: ExecutionContext) -> RawResult:
        """Return the whole draft at once."""
        return RawResult(ctx.capability_id, {"text": "Dear customer, your order is on its way."})

    async def execute_stream(self, ctx: ExecutionContext) -> AsyncIterator[dict[str, Any]]:
        """Hand out the draft in pieces."""
        for piece in ("Dear customer,", "your order", "is on its way."):
            await asyncio.sleep(0.01)
            yield {"text": piece}


def list_orders(ctx: ExecutionContext) -> list[dict[str, Any]]:
    """Forty orders, always the same."""
    return [{"id": n, "item": f"item-{n % 7}", "total": 10 * n} for n in range(1, 41)]


def get_customer(ctx: ExecutionContext) -> dict[str, Any]:
    """A record with more in it than the agent may see."""
    return {
        "id": 7,
        "plan": "gold",
        "email": "alice@example.com",
        "note": "prefers mail to alice@example.com",
    }


def refuse_mail(ctx: ExecutionContext) -> None:
    """A mail server that is down."""
    raise DriverError("connection refused")


def send_mail(ctx: ExecutionContext) -> dict[str, Any]:
    """A mail server that is up."""
    return {"sent": True}


def memory_driver(driver_id: str, **handlers: Any) -> InMemoryDriver:
    """A driver with one handler per capability; ``__`` in a name stands for its dot."""
    driver = InMemoryDriver(driver_id)
    for name, handler in handlers.items():
        driver.register_handler(name.replace("__", "."), handler)
    return driver


def make_kernel(**options: Any) -> tuple[Kernel, HMACTokenProvider]:
    """A kernel with the capabilities above, and its token provider."""
    registry = CapabilityRegistry()
    for capability in CAPABILITIES:
        registry.register(capability)
    tokens = HMACTokenProvider(secret="for this tour only")
    router = StaticRouter(
        {"mail.send": ["mail-1", "mail-2"], "answers.draft": ["writer"]}, fallback=["crm"]
    )
    kernel = Kernel(registry, token_provider=tokens, router=router, **options)
    crm = memory_driver("crm", orders__list=list_orders, customers__get=get_customer)
    for driver in (
        crm,
        memory_driver("mail-1", mail__send=refuse_mail),
        memory_driver("mail-2", mail__send=send_mail),
        Writer(),
    ):
        kernel.register_driver(driver)
    return kernel, tokens


def grant(kernel: Kernel, capability_id: str) -> CapabilityToken:
    """Ask the kernel for leave to use a capability."""
    request = CapabilityRequest(capability_id, goal="answer ticket 4711")
    return kernel.get_token(request, AGENT, justification="the customer asked in ticket 4711")


async def tour() -> None:
    """Take the agent through everything that a kernel can say."""
    kernel, tokens = make_kernel()

    orders = grant(kernel, "orders.list")
    frame = await kernel.invoke(orders, principal=AGENT, args={}, response_mode="table")
    print(f"allowed     {len(frame.table_preview)} orders")

    if frame.handle is not None:
        page = kernel.expand(frame.handle, query={"offset": 35, "limit": 5}, principal=AGENT)
        print(f"expanded    {len(page.table_preview)} more rows by the handle")

    try:
        grant(kernel, "customers.delete")
    except PolicyDenied as denial:
        print(f"denied      {denial.reason_code}")

    customer = grant(kernel, "customers.get")
    frame = await kernel.invoke(customer, principal=AGENT, args={"id": 7}, response_mode="table")
    print(f"redacted    {frame.table_preview[0]}")

    await kernel.invoke(grant(kernel, "mail.send"), principal=AGENT, args={})
    print("fell back   the first mail server was down, the second served")

    plan = await kernel.invoke(orders, principal=AGENT, args={}, dry_run=True)
    print(f"dry run     would use {plan.driver_id}, at {plan.estimated_cost} cost")

    draft = grant(kernel, "answers.draft")
    pieces = [frame async for frame in kernel.invoke_stream(draft, principal=AGENT, args={})]
    print(f"streamed    {len(pieces)} pieces")

    tokens.revoke(orders.token_id)
    try:
        await kernel.invoke(orders, principal=AGENT, args={})
    except TokenRevoked:
        print("refused     the token was revoked")

    thrifty, _ = make_kernel(budget_manager=BudgetManager(500, default_request=50))
    orders = grant(thrifty, "orders.list")
    for _ in range(2):
        frame = await thrifty.invoke(orders, principal=AGENT, args={}, response_mode="table")
    print(f"downgraded  asked for a table, got a {frame.response_mode}: the budget is low")


if __name__ == "__main__":
    asyncio.run(tour())
