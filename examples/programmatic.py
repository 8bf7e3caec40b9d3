# SPDX-License-Identifier: Apache-2.0
"""An app that sets OpenTelemetry up by itself, and switches the instrumentation on in code.

It sends OTLP over gRPC to localhost:4317, or where OTEL_EXPORTER_OTLP_ENDPOINT says.
"""

from __future__ import annotations

import asyncio

from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from tour import tour

from agent_kernel_otel import KernelInstrumentor

resource = Resource.create({"service.name": "programmatic-example"})
tracer_provider = TracerProvider(resource=resource)
tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
logger_provider = LoggerProvider(resource=resource)
logger_provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))

instrumentor = KernelInstrumentor()
instrumentor.instrument(
    tracer_provider=tracer_provider,
    logger_provider=logger_provider,
    span_level="debug",
    principal_id="hash",
    principal_hash_key="the same key in every process",
)

asyncio.run(tour())

instrumentor.uninstrument()
tracer_provider.shutdown()
logger_provider.shutdown()
