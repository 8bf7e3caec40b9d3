# SPDX-License-Identifier: Apache-2.0
"""What a histogram's value costs an app: recorded at once, or to wait and be recorded in batches.

Run it with ``python benchmarks/histograms.py``. A real kernel is called in one process; after each
call a sampled span ends, and its duration is a value of a histogram with three attributes. The
variants take turns in random order; the ratios are the result.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import opentelemetry.sdk.version
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import set_span_in_context
from rig import Bench, Providers, load_library

from agent_kernel_otel.histograms import Buffer, BufferedHistogram

BOUNDS = (0.25, 1, 5, 25, 100, 250, 1_000, 2_500, 10_000, 30_000)
ATTRIBUTES = {
    "agent_kernel.system": "weaver_kernel",
    "agent_kernel.capability_id": "tasks.list",
    "agent_kernel.safety_class": "READ",
    "agent_kernel.status": "success",
}
BARE = "no histogram"
AT_ONCE = "one by one"

Record = Callable[[float, Mapping[str, str], Context | None], None]


@dataclass
class Variant:
    """One way to record, and what was measured.

    Attributes:
        name: What it is called.
        record: Records a value, if any is.
        finish: Records what waits.
        cpu: Microseconds of the process for each call, by round.
        took: Nanoseconds of each call, by turn.
        late: Nanoseconds by which each began too late, by turn.
    """

    name: str
    record: Record | None = None
    finish: Callable[[], None] = lambda: None
    cpu: list[float] = field(default_factory=list)
    took: list[list[int]] = field(default_factory=list)
    late: list[list[int]] = field(default_factory=list)


def at_once() -> Variant:
    return Variant(AT_ONCE, _instrument().record)


def buffered(name: str, **options: Any) -> Variant:
    buffer = Buffer(**options)
    return Variant(name, BufferedHistogram(_instrument(), buffer).record, buffer.record_waiting)


def by_the_caller(size: int) -> Variant:
    """The caller records all that wait when they are so many, with no thread to help."""
    instrument = _instrument()
    waiting: list[tuple[float, Mapping[str, str], Context | None]] = []

    def finish() -> None:
        for value in waiting:
            instrument.record(*value)
        waiting.clear()

    def record(*value: Any) -> None:
        waiting.append(value)
        if len(waiting) >= size:
            finish()

    return Variant(f"by the caller, {size} at a time", record, finish)


def _instrument() -> Any:
    meter = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False).get_meter("benchmark")
    return meter.create_histogram("took", "ms", explicit_bucket_boundaries_advisory=BOUNDS)


class App:
    """Calls a kernel, traces the call with one span, and records its duration."""

    def __init__(self) -> None:
        self._bench = Bench(load_library())
        self._providers = Providers()
        self._start = self._providers.tracer_provider.get_tracer("benchmark").start_span

    def fresh(self) -> None:
        self._bench.fresh()
        self._providers.empty()

    async def call(self, record: Record | None) -> None:
        began = time.perf_counter_ns()
        span = self._start("invoke", attributes={"capability": "tasks.list", "stream": False})
        await self._bench.invoke()
        span.end()
        if record is not None:
            elapsed = (time.perf_counter_ns() - began) / 1e6
            record(elapsed, ATTRIBUTES, set_span_in_context(span, Context()))

    async def saturate(self, variant: Variant, calls: int) -> float:
        """Call as fast as possible, and say what CPU time each call took of the process."""
        began = time.process_time_ns()
        for _ in range(calls):
            await self.call(variant.record)
        variant.finish()
        return (time.process_time_ns() - began) / calls / 1000

    async def pace(self, variant: Variant, rate: int, calls: int) -> None:
        """Call at a steady rate."""
        clock = time.perf_counter_ns
        took, late = [0] * calls, [0] * calls
        begin = clock() + 10_000_000
        for number in range(calls):
            due = begin + number * 1_000_000_000 // rate
            wait = due - clock()
            if wait > 0:
                time.sleep(wait / 1e9)  # noqa: ASYNC251 - asyncio's rounds to milliseconds
            start = clock()
            await self.call(variant.record)
            took[number] = clock() - start
            late[number] = max(0, start - due)
        variant.finish()
        variant.took.append(took)
        variant.late.append(late)


def cpu(app: App, options: argparse.Namespace) -> None:
    """CPU time of the process for each value, as fast as calls go; recording included"""
    variants = [Variant(BARE), at_once()]
    variants += [by_the_caller(size) for size in (16, 64, 256)]
    variants += [buffered(f"buffered, shares of {n}", share=n) for n in (8, 16, 32, 64, 128)]
    order = random.Random(20261121)
    for number in range(options.rounds + 2):
        for variant in order.sample(variants, len(variants)):
            app.fresh()
            gc.collect(0)
            took = asyncio.run(app.saturate(variant, options.calls))
            if number >= 2:
                variant.cpu.append(took)
    bare, one_by_one = variants[:2]
    for variant in variants[1:]:
        _print_ratios(variant.name, bare.cpu, one_by_one.cpu, variant.cpu)


def tail(app: App, options: argparse.Namespace) -> None:
    """Latency of calls at a steady rate"""
    variants = [Variant(BARE), at_once()]
    variants += [by_the_caller(size) for size in (16, 64)]
    variants += [buffered(f"buffered, slices of {n}", slice_size=n) for n in (4, 16, 64)]
    order = random.Random(20261121)
    for number in range(options.turns + 1):
        for variant in order.sample(variants, len(variants)):
            app.fresh()
            gc.collect()
            asyncio.run(app.pace(variant, options.rate, options.rate * options.seconds))
            if not number:
                variant.took.clear()
                variant.late.clear()
    print(f"  {options.rate} calls/s, {options.turns} turns of {options.seconds} s each; us")
    print(f"  {'':<44}|   p50    p99  p99.9 |  since due: p99  p99.9")
    for variant in variants:
        own = "".join(f"{_quantile(variant.took, at):7.0f}" for at in (0.5, 0.99, 0.999))
        whole = "".join(f"{_quantile(_response(variant), at):8.0f}" for at in (0.99, 0.999))
        print(f"  {variant.name:<44}|{own} |       {whole}")
    bare, one_by_one = variants[:2]
    for label, at, what in (
        ("p50", 0.5, _took),
        ("p99", 0.99, _took),
        ("p99.9", 0.999, _took),
        ("p99.9 since due", 0.999, _response),
    ):
        print(f"  {label}: added, to what is added by recording one by one")
        for variant in variants[2:]:
            _print_ratios(
                variant.name,
                *([_quantile([turn], at) for turn in what(v)] for v in (bare, one_by_one, variant)),
            )


def _took(variant: Variant) -> list[list[int]]:
    return variant.took


def _response(variant: Variant) -> list[list[int]]:
    return [
        [took + late for took, late in zip(*turn, strict=True)]
        for turn in zip(variant.took, variant.late, strict=True)
    ]


def _quantile(turns: list[list[int]], at: float) -> float:
    times = sorted(time for turn in turns for time in turn)
    return times[min(len(times) - 1, int(len(times) * at))] / 1000


def _print_ratios(name: str, bare: list[float], base: list[float], own: list[float]) -> None:
    whole = [mine / theirs for mine, theirs in zip(own, base, strict=True)]
    added = statistics.median(own[i] - bare[i] for i in range(len(bare)))
    added_base = statistics.median(base[i] - bare[i] for i in range(len(bare)))
    low, median, high = statistics.quantiles(whole, n=4)
    print(
        f"  {name:<50}{added / added_base:6.2f}x  ({added:.1f} to {added_base:.1f} us added)"
        f"   of the whole {median:.3f}x [{low:.3f} to {high:.3f}]"
    )


def turn(_: App, options: argparse.Namespace) -> None:
    """How much later than asked for a thread wakes, while ours records without end"""
    record = _instrument().record
    slices = [0, 1, 2, 4, 8, 16, 32]
    late: dict[int, list[list[int]]] = {size: [] for size in slices}
    order = random.Random(20261121)
    for _ in range(options.turns):
        for size in order.sample(slices, len(slices)):
            stop = threading.Event()
            ours = threading.Thread(target=_record_without_end, args=(record, size, stop))
            ours.start()
            late[size].append(_waking(500))
            stop.set()
            ours.join()
    for size, turns in late.items():
        name = f"slices of {size}" if size else "nothing to record"
        print(f"  {name:<30}" + "".join(f"{_quantile(turns, at):8.0f}" for at in (0.5, 0.9, 0.99)))


def _record_without_end(record: Record, size: int, stop: threading.Event) -> None:
    while not stop.is_set():
        for _ in range(size):
            record(1.0, ATTRIBUTES, None)
        time.sleep(0 if size else 0.01)


def _waking(times: int) -> list[int]:
    late = [0] * times
    for number in range(times):
        asked = time.perf_counter_ns()
        time.sleep(0.002)
        late[number] = time.perf_counter_ns() - asked - 2_000_000
    return late


TABLES = {"cpu": cpu, "turn": turn, "tail": tail}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(TABLES), help="one table only")
    parser.add_argument("--rounds", type=int, default=61, help="blocks of each variant")
    parser.add_argument("--calls", type=int, default=600, help="calls in a block")
    parser.add_argument("--turns", type=int, default=8, help="turns at a steady rate")
    parser.add_argument("--seconds", type=int, default=4, help="length of a turn")
    parser.add_argument("--rate", type=int, default=1000, help="calls per second")
    options = parser.parse_args()
    sdk = opentelemetry.sdk.version.__version__
    print(f"Python {sys.version.split()[0]}, OpenTelemetry SDK {sdk}")
    app = App()
    for name, table in TABLES.items():
        if options.only in (None, name):
            print(f"\n{table.__doc__}")
            table(app, options)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"\nload of the machine at the end: {load:.1f} on {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
