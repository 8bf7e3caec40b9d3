# SPDX-License-Identifier: Apache-2.0
"""A value can be added by a finalizer or a signal handler, in the midst of recording another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics._internal.exemplar import AlignedHistogramBucketExemplarReservoir
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import View

from agent_kernel_otel.histograms import Buffer, BufferedHistogram
from tests.metrics.collecting import collect, count_of, run

FULL = 20
PATIENCE = 20


class _Finalized:
    """Ends an operation when it is garbage."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end

    def __del__(self) -> None:
        self._end()


class _Setting:
    """A histogram in whose SDK garbage is collected, where the SDK holds all its locks."""

    def __init__(self) -> None:
        self.interruptions = 0
        self._depth = 0
        interrupt = self._interrupt

        class Reservoir(AlignedHistogramBucketExemplarReservoir):
            def _find_bucket_index(self, *value: Any) -> int:
                interrupt()
                return super()._find_bucket_index(*value)

            def collect(self, point_attributes: Any) -> Any:
                interrupt()
                return super().collect(point_attributes)

        factory: Any = lambda _: Reservoir  # noqa: E731 - the SDK's own types are too narrow
        self.reader = InMemoryMetricReader()
        provider = MeterProvider(
            [self.reader],
            shutdown_on_exit=False,
            exemplar_filter=AlwaysOnExemplarFilter(),
            views=[View(instrument_name="*", exemplar_reservoir_factory=factory)],
        )
        meter = provider.get_meter("test")
        self.buffer = Buffer(full=FULL, share=5, interval=3600)
        self.took = BufferedHistogram(meter.create_histogram("took"), self.buffer)

    def _interrupt(self) -> None:
        if self._depth < 3:
            self._depth += 1
            self.interruptions += 1
            _Finalized(lambda: self.took.record(2.0, {}, None))
            self._depth -= 1


def test_a_finalizer_in_the_midst_of_recording_neither_hangs_nor_loses_a_value() -> None:
    setting = _Setting()
    done = threading.Event()

    def use() -> None:
        for _ in range(10 * FULL):
            setting.took.record(1.0, {}, None)  # past the bound it records some itself
        done.set()

    threading.Thread(target=use, daemon=True).start()
    assert done.wait(PATIENCE)
    assert setting.interruptions > FULL
    _nothing_is_lost(setting, 10 * FULL)


def test_a_finalizer_in_the_midst_of_a_collection_neither_hangs_nor_loses_a_value() -> None:
    setting = _Setting()
    for _ in range(FULL - 1):
        setting.took.record(1.0, {}, None)
    setting.buffer.record_waiting()
    collected: list[int] = []

    def use() -> None:
        # Each collection adds one, until too many wait.
        collected.extend(count_of(collect(setting.reader)["took"]) for _ in range(FULL))

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert len(collected) == FULL
    _nothing_is_lost(setting, FULL - 1)


def _nothing_is_lost(setting: _Setting, recorded: int) -> None:
    for _ in range(100):
        if not setting.buffer.waiting:
            break
        setting._depth = 3  # no more of them
        setting.buffer.record_waiting()
    assert count_of(collect(setting.reader)["took"]) == recorded + setting.interruptions


def test_a_signal_handler_that_records_neither_hangs_nor_loses_a_value() -> None:
    script = """
import json, signal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from agent_kernel_otel import histograms

reader = InMemoryMetricReader()
meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("test")
meter.create_observable_gauge("first", [lambda _: histograms.record_waiting() or []])
took = histograms.BufferedHistogram(meter.create_histogram("took"))

def count():
    metrics = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    return sum(point.count for metric in metrics for point in metric.data.data_points)

by_signals = 0
def handle(*_):
    global by_signals
    for _ in range(20):
        took.record(1.0, {}, None)
        by_signals += 1
    signal.setitimer(signal.ITIMER_REAL, 0.001)

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.001)
recorded, shown = 0, []
while by_signals < 6_000:
    took.record(1.0, {}, None)
    recorded += 1
    if recorded % 200 == 0:
        shown.append(count())
signal.signal(signal.SIGALRM, signal.SIG_IGN)
print(json.dumps([shown == sorted(shown), count(), recorded + by_signals]))
"""
    in_order, counted, recorded = run(script)
    assert in_order
    assert counted == recorded
