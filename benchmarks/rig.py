# SPDX-License-Identifier: Apache-2.0
"""Measuring soundly on a noisy machine: all variants in one process, interleaved, as ratios.

Each round runs one block of every variant, in random order; what is reported is the median of
the rounds' ratios with their quartiles, never a ratio of two medians. Stores are new for each block, because a full handle store costs more than all
instrumentation together.

The clock is the process's CPU time, and values of histograms that wait are recorded at the end of
each block, inside of it.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Sampler

from agent_kernel_otel.histograms import record_waiting

CAPABILITY = "tasks.list"


class _Discard(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002 - the interface's
        return SpanExportResult.SUCCESS


class Providers:
    """An SDK whose exporter never runs inside a block: export is measured elsewhere."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self.processor = BatchSpanProcessor(
            _Discard(),
            max_queue_size=131_072,
            max_export_batch_size=131_072,
            schedule_delay_millis=1e7,
        )
        self.tracer_provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(self.processor)
        self.logger_provider = LoggerProvider(shutdown_on_exit=False)
        self.meter_provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)

    def empty(self) -> None:
        """Forget the spans of a block, which are not to be exported inside the next one."""
        self.processor._batch_processor._queue.clear()

    @property
    def keywords(self) -> dict[str, Any]:
        return {
            "tracer_provider": self.tracer_provider,
            "logger_provider": self.logger_provider,
            "meter_provider": self.meter_provider,
        }


def load_library() -> Any:
    """A copy of ``weaver_kernel`` of its own, so that patched and bare classes run side by side."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "weaver_kernel"]:
        del sys.modules[name]
    library = importlib.import_module("weaver_kernel")
    logging.getLogger("weaver_kernel").setLevel(logging.ERROR)
    return library


def row(number: int) -> dict[str, Any]:
    """A row of data as tools return it."""
    return {
        "id": number,
        "customer": f"customer {number}",
        "amount": 12.5 + number,
        "currency": "EUR",
        "status": "paid",
        "date": "2026-01-01",
    }


class Bench:
    """A kernel with one capability over an in-memory driver, and a token for it.

    Args:
        library: A copy of ``weaver_kernel``.
        rows: How many rows the driver answers with.
        fail: Whether it raises instead.
    """

    def __init__(self, library: Any, rows: int = 1, *, fail: bool = False) -> None:
        self.weaver = library
        answer = [row(number) for number in range(rows)]

        def handler(_: Any) -> Any:
            if fail:
                raise ConnectionError("the service is down")
            return answer

        registry = library.CapabilityRegistry()
        registry.register(
            library.Capability(CAPABILITY, "List", "List the tasks", library.SafetyClass.READ)
        )
        clock = iter(range(0, 10**12, 100))
        policy = library.DefaultPolicyEngine(
            rate_limits={library.SafetyClass.READ: (10**9, 60.0)},
            clock=lambda: float(next(clock)),
        )
        self.provider = library.HMACTokenProvider(secret="benchmark")
        self.kernel = library.Kernel(registry, policy=policy, token_provider=self.provider)
        driver = library.InMemoryDriver()
        driver.register_handler(CAPABILITY, handler)
        self.kernel.register_driver(driver)
        self.principal = library.Principal("alice", roles=["reader"])
        self.request = library.CapabilityRequest(CAPABILITY, "see the tasks")
        self.token = self.provider.issue(CAPABILITY, "alice")

    def fresh(self) -> None:
        """New stores, as at the start of a process."""
        self.kernel._handle_store = type(self.kernel._handle_store)()
        self.kernel._trace_store = type(self.kernel._trace_store)()

    async def invoke(self) -> Any:
        return await self.kernel.invoke(
            self.token, principal=self.principal, args={}, response_mode="summary"
        )

    async def failing_invoke(self) -> None:
        try:
            await self.invoke()
        except self.weaver.DriverError:
            return
        raise AssertionError("the driver was meant to fail")

    async def grant(self) -> Any:
        return self.kernel.grant_capability(
            self.request, self.principal, justification="the weekly report needs it"
        )


@dataclass
class Variant:
    """One thing to measure.

    Attributes:
        name: What it is.
        call: Runs it once.
        prepare: Runs before each block, untimed.
    """

    name: str
    call: Callable[[], Awaitable[Any]]
    prepare: Callable[[], None]


@dataclass
class Ratio:
    """A ratio over the rounds: its median and quartiles."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:5.2f}x  [{self.low:.2f} to {self.high:.2f}]"


class Result:
    """Microseconds per call, by variant and round."""

    def __init__(self, times: dict[str, list[float]]) -> None:
        self.times = times

    def median(self, name: str) -> float:
        """Microseconds of one call, for orientation only."""
        return statistics.median(self.times[name])

    def ratio(self, name: str, to: str, less: str | None = None) -> Ratio:
        """A variant to another one, round by round; less a third's time from both, if given."""
        ratios = []
        for index, value in enumerate(self.times[name]):
            base = 0.0 if less is None else self.times[less][index]
            ratios.append((value - base) / (self.times[to][index] - base))
        low, median, high = statistics.quantiles(ratios, n=4)
        return Ratio(low, median, high)


async def _run(variants: list[Variant], rounds: int, block: int, warm_up: int) -> Result:
    order = random.Random(20261121)
    times: dict[str, list[float]] = {variant.name: [] for variant in variants}
    for number in range(warm_up + rounds):
        for variant in order.sample(variants, len(variants)):
            variant.prepare()
            gc.collect(0)
            call = variant.call
            began = time.process_time_ns()
            for _ in range(block):
                await call()
            record_waiting()
            elapsed = time.process_time_ns() - began
            if number >= warm_up:
                times[variant.name].append(elapsed / block / 1000.0)
    return Result(times)


def measure(
    variants: list[Variant], *, rounds: int = 31, block: int = 200, warm_up: int = 2
) -> Result:
    """Run all variants interleaved.

    Args:
        variants: What to measure.
        rounds: How often each runs a block that counts.
        block: Calls in a block.
        warm_up: Rounds before, which do not count.
    """
    gc.collect()
    gc.disable()
    try:
        return asyncio.run(_run(variants, rounds, block, warm_up))
    finally:
        gc.enable()
