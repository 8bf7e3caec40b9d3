# SPDX-License-Identifier: Apache-2.0
"""Two kernels in one process, of which only one is traced.

It sends OTLP over gRPC to localhost:4317, or where OTEL_EXPORTER_OTLP_ENDPOINT says.
"""

from __future__ import annotations

import asyncio

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from tour import AGENT, grant, make_kernel

from agent_kernel_otel import instrument_kernel, uninstrument_kernel


async def main() -> None:
    """Call both kernels; one trace comes out."""
    traced, _ = make_kernel(kernel_id="traced")
    quiet, _ = make_kernel(kernel_id="quiet")

    instrument_kernel(traced)
    for kernel in (traced, quiet):
        frame = await kernel.invoke(grant(kernel, "orders.list"), principal=AGENT, args={})
        print(f"{kernel.kernel_id}: {len(frame.facts)} facts")
    uninstrument_kernel(traced)


if __name__ == "__main__":
    provider = TracerProvider(resource=Resource.create({"service.name": "one-kernel-example"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    asyncio.run(main())
    provider.shutdown()
