# SPDX-License-Identifier: Apache-2.0
"""An audit trail and the traces of the same actions, and the way from each to the other.

    agent-kernel-otel console -- opentelemetry-instrument python examples/audit_trail.py

It writes ``audit.jsonl``, which stays as the kernel wrote it. Months later, on any machine:

    agent-kernel-otel console -- agent-kernel-otel export audit.jsonl
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from opentelemetry.trace import format_trace_id
from tour import AGENT, grant, make_kernel
from weaver_kernel import PolicyDenied
from weaver_kernel.models import ActionTrace
from weaver_kernel.ocsf import trace_to_ocsf
from weaver_kernel.stores import JsonlTraceStore

from agent_kernel_otel import replayed_context, trace_context

TRACE_URL = "http://localhost:16686/trace/{trace_id}"
"""Jaeger's; docs/audit.md has those of Tempo and Datadog."""


def security_event(record: ActionTrace) -> dict[str, Any]:
    """A record as an OCSF event that names its trace, for a security team's own tools."""
    event: dict[str, Any] = trace_to_ocsf(record)
    live = trace_context(record.action_id)
    if live is not None:
        event["metadata"]["correlation_uid"] = format_trace_id(live.trace_id)
    return event


async def work(audit: JsonlTraceStore) -> None:
    """Do a few things that an auditor may ask about."""
    kernel, _ = make_kernel(trace_store=audit)
    orders = grant(kernel, "orders.list")
    frame = await kernel.invoke(orders, principal=AGENT, args={}, response_mode="table")
    if frame.handle is not None:
        kernel.expand(frame.handle, query={"offset": 35, "limit": 5}, principal=AGENT)
    try:
        grant(kernel, "customers.delete")
    except PolicyDenied:
        print("customers.delete was denied")


def main() -> None:
    """Keep an audit trail, then go from its records to their traces."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "audit.jsonl")
    audit = JsonlTraceStore(path, secret="for this example only")
    asyncio.run(work(audit))
    for record in audit.list_all():
        trace_id = security_event(record)["metadata"].get("correlation_uid")
        replayed = format_trace_id(replayed_context(record.action_id).trace_id)
        print(f"{record.event_type:<7} {record.capability_id}  action {record.action_id}")
        if trace_id is not None:
            print(f"        live      {TRACE_URL.format(trace_id=trace_id)}")
        print(f"        replayed  {TRACE_URL.format(trace_id=replayed)}  (once it is exported)")


if __name__ == "__main__":
    main()
