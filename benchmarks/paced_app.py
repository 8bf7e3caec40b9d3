# SPDX-License-Identifier: Apache-2.0
"""An app that calls a kernel at a steady rate, or all at once, and says how long each call took.

A process of its own for each way to be traced, because a pipeline belongs to a process. Run as a
script with ``bare``, ``stock`` or ``ours`` as its argument, it does what the JSON lines on its
standard input ask, and answers with one JSON line each. Where to export is in the environment.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from typing import Any

from opentelemetry import trace
from rig import Bench, load_library


def trace_nothing() -> None:
    """The kernel as it is."""


def trace_with_stock_pipelines() -> None:
    """The instrumentation under the SDK's own pipelines and defaults."""
    from opentelemetry.sdk._configuration import _OTelSDKConfigurator  # noqa: PLC0415

    from agent_kernel_otel.weaver.instrumentor import KernelInstrumentor  # noqa: PLC0415

    for signal in ("TRACES", "METRICS", "LOGS"):
        os.environ[f"OTEL_{signal}_EXPORTER"] = "otlp"
    _OTelSDKConfigurator().configure()
    KernelInstrumentor().instrument()


def trace_with_our_pipelines() -> None:
    """The instrumentation as ``opentelemetry-instrument`` starts it with our distro."""
    from agent_kernel_otel.distro.configurator import AgentKernelConfigurator  # noqa: PLC0415
    from agent_kernel_otel.distro.distro import AgentKernelDistro  # noqa: PLC0415
    from agent_kernel_otel.pipeline.lifecycle import started  # noqa: PLC0415
    from agent_kernel_otel.weaver.instrumentor import KernelInstrumentor  # noqa: PLC0415

    AgentKernelDistro().configure()
    AgentKernelConfigurator().configure()
    KernelInstrumentor().instrument()
    started()


WAYS = {
    "bare": trace_nothing,
    "stock": trace_with_stock_pipelines,
    "ours": trace_with_our_pipelines,
}


async def call_at_rate(bench: Bench, rate: int, count: int) -> tuple[list[int], list[int]]:
    """Nanoseconds that each call took, and by which it began too late."""
    took, late = [0] * count, [0] * count
    clock = time.perf_counter_ns
    begin = clock() + 10_000_000
    for number in range(count):
        due = begin + number * 1_000_000_000 // rate
        wait = due - clock()
        if wait > 0:
            # Not asyncio's, which rounds to milliseconds.
            time.sleep(wait / 1e9)  # noqa: ASYNC251
        start = clock()
        await bench.invoke()
        took[number] = clock() - start
        late[number] = start - due
    return took, late


async def call_at_once(bench: Bench, count: int) -> None:
    for _ in range(count):
        await bench.invoke()


def obey(bench: Bench, rate: int, count: int, *, flush: bool) -> dict[str, Any]:
    """Call the kernel, at a rate or, if that is 0, as fast as it can."""
    bench.fresh()  # a full handle store costs more than all tracing
    gc.collect()
    full = gc.get_stats()[2]["collections"]
    cpu, began = time.process_time_ns(), time.perf_counter_ns()
    took: list[int] = []
    late: list[int] = []
    if rate:
        took, late = asyncio.run(call_at_rate(bench, rate, count))
    else:
        asyncio.run(call_at_once(bench, count))
    elapsed = time.perf_counter_ns() - began
    if flush:
        getattr(trace.get_tracer_provider(), "force_flush", bool)()
    cpu = time.process_time_ns() - cpu
    full = gc.get_stats()[2]["collections"] - full
    return {"took": took, "late": late, "elapsed": elapsed, "cpu": cpu, "full_collections": full}


def main() -> None:
    library = load_library()
    WAYS[sys.argv[1]]()
    bench = Bench(library)
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(obey(bench, **json.loads(line))), flush=True)
    os._exit(0)  # how long the end takes is measured elsewhere


if __name__ == "__main__":
    main()
