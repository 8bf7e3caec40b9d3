# SPDX-License-Identifier: Apache-2.0
"""An agent with an audit trail, and a secret wherever its kernel meets a text; no telemetry.

    python tests/backends/audited_agent.py AUDIT_FILE [mirror]

It prints what the trail says of each action, as one JSON object. Told to mirror, it does what an app adds
whose backend shows spans only.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import weaver_kernel as wk
from weaver_kernel.drivers.base import ExecutionContext
from weaver_kernel.stores import JsonlTraceStore

from tests.support.kernels import ADMIN, ALICE, DESTROY, WRITE, grant, make_kernel, memory_driver

SECRET = os.environ["AGENT_SECRET"]


def answer(context: ExecutionContext) -> Any:
    if context.capability_id == WRITE:
        raise wk.DriverError(f"refused: Bearer sk-{SECRET}")
    return [{"id": 1, "note": SECRET, "mail": f"{SECRET}@example.com"}]


async def act(kernel: wk.Kernel) -> None:
    """What an agent does in a minute: something allowed, something that fails, something denied."""
    args = {"note": SECRET, "authorization": f"Bearer {SECRET}"}
    token = grant(kernel, justification=f"{SECRET} asked for the weekly report").token
    frame = await kernel.invoke(token, principal=ALICE, args=args, response_mode="handle_only")
    assert frame.handle is not None
    kernel.expand(frame.handle, query={"filter": {"note": SECRET}, "limit": 1}, principal=ALICE)
    token = grant(kernel, WRITE, ADMIN, constraints={"note": SECRET}).token
    with suppress(wk.DriverError):
        await kernel.invoke(token, principal=ADMIN, args=args)
    with suppress(wk.PolicyDenied):
        grant(kernel, DESTROY, justification=f"because {SECRET} said so")


def mirror() -> None:
    from opentelemetry._logs import get_logger_provider

    from agent_kernel_otel import SpanEventProcessor

    provider: Any = get_logger_provider()
    provider.add_log_record_processor(SpanEventProcessor())


def main() -> None:
    trail, *wishes = sys.argv[1:]
    if wishes == ["mirror"]:
        mirror()
    store: Any = JsonlTraceStore(Path(trail))
    asyncio.run(act(make_kernel(memory_driver(answer=answer), trace_store=store)))
    print(
        json.dumps(
            [
                {
                    "action_id": record.action_id,
                    "capability_id": record.capability_id,
                    "event_type": record.event_type,
                    "failed": bool(record.error),
                }
                for record in store.list_all()
            ]
        )
    )


if __name__ == "__main__":
    main()
