# SPDX-License-Identifier: Apache-2.0
"""The same telemetry as ours, written by hand by somebody who knows the SDK well: the floor.

Start attributes are given at creation, late ones are set in one call, leaf spans are made when
they are over, and only the root and the driver's span are made current. Of the metrics there are
only a counter and a histogram; they are told inside of the root, so that both have exemplars.
"""

from __future__ import annotations

from time import perf_counter_ns, time_ns
from typing import Any

from opentelemetry.context import attach, detach, get_current
from opentelemetry.trace import set_span_in_context

ACTION = "8f14e45f-ceea-467f-a0e6-2d0c8f2b6a11"


_BOUNDS = (0.25, 1, 5, 25, 100, 250, 1_000, 2_500, 10_000, 30_000)


class Instruments:
    """The two instruments that one would write by hand."""

    def __init__(self, meter: Any) -> None:
        self.invocations = meter.create_counter("agent_kernel.invocations", "{invocation}")
        self.duration = meter.create_histogram(
            "agent_kernel.invocation_duration", "ms", explicit_bucket_boundaries_advisory=_BOUNDS
        )


def info_tree(tracer: Any, instruments: Instruments | None = None) -> None:
    """One invocation at level info: 4 spans, with the attributes that ours have.

    Args:
        tracer: Makes the spans.
        instruments: Where it is counted and measured; nowhere by default.
    """
    began = perf_counter_ns()
    base = get_current()
    root = tracer.start_span(
        "agent_kernel.invoke",
        context=base,
        attributes={
            "agent_kernel.system": "weaver_kernel",
            "agent_kernel.kernel_id": "agent-kernel",
            "agent_kernel.dry_run": False,
            "agent_kernel.stream": False,
            "agent_kernel.capability_id": "tasks.list",
            "agent_kernel.safety_class": "READ",
            "agent_kernel.sensitivity": "NONE",
            "agent_kernel.principal_id": "alice",
            "agent_kernel.requested_response_mode": "summary",
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.type": "function",
            "gen_ai.tool.name": "tasks.list",
            "gen_ai.tool.description": "List the tasks",
            "agent_kernel.token_id": ACTION,
        },
    )
    recording = root.is_recording()
    context = set_span_in_context(root, base)
    token = attach(context)
    try:
        if recording:
            start = time_ns()
            tracer.start_span(
                "agent_kernel.policy.evaluate",
                context=context,
                start_time=start,
                attributes={
                    "agent_kernel.system": "weaver_kernel",
                    "agent_kernel.policy.engine": "HMACTokenProvider",
                    "agent_kernel.policy.phase": "enforce",
                    "agent_kernel.policy.outcome": "allowed",
                },
            ).end()
            driver = tracer.start_span(
                "agent_kernel.driver.execute",
                context=context,
                attributes={
                    "agent_kernel.system": "weaver_kernel",
                    "agent_kernel.driver_id": "memory",
                },
            )
            inner = attach(set_span_in_context(driver, context))
            detach(inner)
            driver.set_attribute("agent_kernel.status", "success")
            driver.end()
            start = time_ns()
            tracer.start_span(
                "agent_kernel.firewall.apply",
                context=context,
                start_time=start,
                attributes={
                    "agent_kernel.system": "weaver_kernel",
                    "agent_kernel.response_mode": "summary",
                    "agent_kernel.redactions": 0,
                },
            ).end()
            root.set_attributes(
                {
                    "agent_kernel.status": "success",
                    "agent_kernel.handle_id": ACTION,
                    "agent_kernel.response_mode": "summary",
                    "agent_kernel.result.facts": 6,
                    "agent_kernel.result.rows": 0,
                    "agent_kernel.redactions": 0,
                    "agent_kernel.fallback": False,
                    "agent_kernel.driver_id": "memory",
                    "gen_ai.tool.call.id": ACTION,
                    "agent_kernel.downgraded": False,
                    "agent_kernel.action_id": ACTION,
                }
            )
        if instruments is not None:
            labels = {
                "agent_kernel.system": "weaver_kernel",
                "agent_kernel.capability_id": "tasks.list",
                "agent_kernel.safety_class": "READ",
                "agent_kernel.status": "success",
            }
            instruments.invocations.add(1, labels)
            instruments.duration.record((perf_counter_ns() - began) / 1e6, labels)
    finally:
        detach(token)
        root.end()
