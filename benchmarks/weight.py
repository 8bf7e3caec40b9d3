# SPDX-License-Identifier: Apache-2.0
"""What telemetry weighs: spans, log events, series and bytes of OTLP, for a bill or a disk.

    python benchmarks/weight.py

Bytes are those of export requests as the distro makes them, 32 spans in each, before and after gzip.
They do not depend on the machine.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Coroutine
from typing import Any

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from weaver_kernel import (
    Capability,
    CapabilityRegistry,
    HMACTokenProvider,
    InMemoryDriver,
    Kernel,
    PolicyDenied,
    Principal,
    SafetyClass,
    StaticRouter,
)
from weaver_kernel.models import CapabilityRequest

from agent_kernel_otel import KernelInstrumentor

_PER_REQUEST = 32
_CALLS = 512
_A_DAY = 1_000_000
_AGENT = Principal("support-agent-7", roles=["reader", "writer"])
_JUSTIFICATION = "the customer asked for it"
_RESOURCE = Resource.create(
    {"service.name": "support-agent", "service.version": "1.4.2", "deployment.environment": "eu"}
)


def _kernel(capabilities: int) -> Kernel:
    registry = CapabilityRegistry()
    driver = InMemoryDriver("crm")
    for number in range(capabilities):
        capability_id = f"orders.list_{number:03}"
        registry.register(Capability(capability_id, "List", "All orders.", SafetyClass.READ))
        driver.register_handler(capability_id, lambda _: [{"id": 1, "plan": "gold"}])
    registry.register(Capability("orders.purge", "Purge", "All of them.", SafetyClass.DESTRUCTIVE))
    tokens = HMACTokenProvider(secret="for this benchmark only")
    kernel = Kernel(registry, token_provider=tokens, router=StaticRouter(fallback=["crm"]))
    kernel.register_driver(driver)
    return kernel


def _grant(kernel: Kernel, capability_id: str) -> Any:
    request = CapabilityRequest(capability_id, goal="answer a ticket")
    return kernel.get_token(request, _AGENT, justification=_JUSTIFICATION)


class _Run:
    """One kernel under providers that keep everything."""

    def __init__(self, level: str, capabilities: int = 1) -> None:
        self.spans, self.logs = InMemorySpanExporter(), InMemoryLogRecordExporter()
        self.metrics = InMemoryMetricReader()
        tracer_provider = TracerProvider(resource=_RESOURCE)
        tracer_provider.add_span_processor(SimpleSpanProcessor(self.spans))
        logger_provider = LoggerProvider(resource=_RESOURCE)
        logger_provider.add_log_record_processor(SimpleLogRecordProcessor(self.logs))
        KernelInstrumentor().instrument(
            tracer_provider=tracer_provider,
            logger_provider=logger_provider,
            meter_provider=MeterProvider([self.metrics], resource=_RESOURCE),
            span_level=level,
        )
        self.kernel = _kernel(capabilities)

    def weigh(self, what: str, does: Callable[[Kernel], Coroutine[Any, Any, None]]) -> None:
        """Do something often, and print what one of it weighs."""
        self.spans.clear()
        self.logs.clear()

        async def often() -> None:
            for _ in range(_CALLS):
                await does(self.kernel)

        asyncio.run(often())
        spans, logs = self.spans.get_finished_spans(), self.logs.get_finished_logs()
        plain = packed = 0
        for items, encode in ((spans, encode_spans), (logs, encode_logs)):
            for start in range(0, len(items), _PER_REQUEST):
                request = encode(items[start : start + _PER_REQUEST]).SerializeToString()
                plain += len(request)
                packed += len(gzip.compress(request, 6))
        print(
            f"{what:<34}{len(spans) / _CALLS:>6.0f}{len(logs) / _CALLS:>8.0f}"
            f"{plain / _CALLS:>9,.0f}{packed / _CALLS:>8,.0f}"
            f"{plain / _CALLS * _A_DAY / 1e9:>10.2f}{packed / _CALLS * _A_DAY / 1e9:>8.2f}"
        )

    def weigh_metrics(self, capabilities: int) -> None:
        """Print what the metrics weigh at one export."""
        data = self.metrics.get_metrics_data()
        series = points = 0
        for scope in data.resource_metrics[0].scope_metrics if data else ():
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    points += 1
                    is_histogram = isinstance(metric.data, Histogram)
                    # On a page for Prometheus a histogram is a series for each bucket, and two more.
                    series += len(point.bucket_counts) + 2 if is_histogram else 1
        size = len(encode_metrics(data).SerializeToString()) if data else 0
        print(f"{capabilities:>12}{points:>8,}{series:>8,}{size:>10,}")

    def over(self) -> None:
        """Put the kernel back as it was."""
        KernelInstrumentor().uninstrument()


async def _be_denied(kernel: Kernel) -> None:
    try:
        _grant(kernel, "orders.purge")
    except PolicyDenied:
        return


def main() -> None:
    """Weigh calls, then metrics."""
    print(f"{'':<34}{'':>6}{'log':>8}{'bytes':>9}{'':>8}{'GB for a million':>18}")
    print(f"{'one of':<34}{'spans':>6}{'events':>8}{'plain':>9}{'gzip':>8}{'plain':>10}{'gzip':>8}")
    for level in ("info", "debug"):
        run = _Run(level)
        token = _grant(run.kernel, "orders.list_000")

        async def invoke(kernel: Kernel, token: Any = token) -> None:
            await kernel.invoke(token, principal=_AGENT, args={})

        run.weigh(f"invocation, {level}", invoke)
        run.over()
    run = _Run("info")
    run.weigh("denial at the grant, info", _be_denied)
    run.over()
    print(f"\n{'capabilities':>12}{'points':>8}{'series':>8}{'bytes an export':>16}")
    for capabilities in (1, 10, 100):
        run = _Run("off", capabilities)

        async def all_of_them(kernel: Kernel, number: int = capabilities) -> None:
            for each in range(number):
                token = _grant(kernel, f"orders.list_{each:03}")
                await kernel.invoke(token, principal=_AGENT, args={})

        asyncio.run(all_of_them(run.kernel))
        run.weigh_metrics(capabilities)
        run.over()


if __name__ == "__main__":
    main()
