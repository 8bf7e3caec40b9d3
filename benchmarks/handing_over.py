# SPDX-License-Identifier: Apache-2.0
"""What it costs the app's thread to hand a finished span over to a pipeline."""

from __future__ import annotations

import gc
import logging
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from rig import Ratio

from agent_kernel_otel.pipeline.batching import BatchingSpanProcessor

_CALLS = 1000
_NEVER = 1e7


class _Stuck(SpanExporter):
    """Returns when it is told to, so that its thread takes no time of those that are measured."""

    def __init__(self) -> None:
        self.may_return = threading.Event()

    def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002 - the interface's
        self.may_return.wait()
        return SpanExportResult.SUCCESS


@dataclass
class State:
    """How a pipeline is found.

    Attributes:
        name: What it is called.
        queue_size: Of the pipeline.
        batch_size: Of the pipeline.
        filled: How many spans wait before the first that is measured.
    """

    name: str
    queue_size: int
    batch_size: int
    filled: int = 0


STATES = (
    State("a batch not yet full", 16384, 16384),
    State("the thread busy, batches waiting", 16384, 128, filled=1024),
    State("the queue full", 2048, 128, filled=4096),
)


def measure(rounds: int) -> Iterator[tuple[str, Ratio, str]]:
    """By state: the ratio of ours to the SDK's, and nanoseconds for orientation."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    for state in STATES:
        times: dict[str, list[float]] = {"ours": [], "stock": []}
        for _ in range(max(rounds, 2) * 3):
            for name, processor in (
                ("ours", BatchingSpanProcessor),
                ("stock", BatchSpanProcessor),
            ):
                times[name].append(_time(processor, state))
        ratios = [one / other for one, other in zip(times["ours"], times["stock"], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        shown = ", ".join(f"{name} {statistics.median(of):.0f}" for name, of in times.items())
        yield state.name, Ratio(low, median, high), shown


def _time(processor: Callable[..., Any], state: State) -> float:
    exporter = _Stuck()
    pipeline = processor(
        exporter,
        max_queue_size=state.queue_size,
        max_export_batch_size=state.batch_size,
        schedule_delay_millis=_NEVER,
    )
    span: Any = TracerProvider(shutdown_on_exit=False).get_tracer("handing-over").start_span("one")
    span.end()
    on_end = pipeline.on_end
    for _ in range(state.filled):
        on_end(span)
    time.sleep(0.02)  # for the thread to begin its export
    gc.collect(0)
    gc.disable()
    began = time.thread_time_ns()
    for _ in range(_CALLS):
        on_end(span)
    elapsed = time.thread_time_ns() - began
    gc.enable()
    exporter.may_return.set()
    pipeline.shutdown()
    return elapsed / _CALLS
