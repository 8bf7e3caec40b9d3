# SPDX-License-Identifier: Apache-2.0
"""Values that wait: all are in the next collection, none is in two, and nobody waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider as Provider
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricReader,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from agent_kernel_otel.faults import faults
from agent_kernel_otel.histograms import Buffer, BufferedHistogram
from tests.metrics.collecting import collect, count_of

NO_ATTRIBUTES: Mapping[str, str] = {}
PATIENCE = 20
"""Seconds after which something is stuck."""


@pytest.fixture
def buffer() -> Buffer:
    return Buffer()


@pytest.fixture
def readers() -> list[InMemoryMetricReader]:
    delta = {SdkHistogram: AggregationTemporality.DELTA}
    return [InMemoryMetricReader(), InMemoryMetricReader(preferred_temporality=delta)]  # type: ignore[arg-type]


def provider_of(readers: list[Any], buffer: Buffer, **options: Any) -> MeterProvider:
    """A provider whose collections begin as ours do."""
    provider = MeterProvider(readers, shutdown_on_exit=False, **options)

    def begin(_: object) -> list[Any]:
        buffer.record_waiting()
        return []

    provider.get_meter("first").create_observable_gauge("first", [begin])
    return provider


@pytest.fixture
def provider(readers: list[MetricReader], buffer: Buffer) -> Iterator[MeterProvider]:
    made = provider_of(readers, buffer)
    yield made
    made.shutdown()


def histogram_of(provider: Provider, buffer: Buffer, name: str = "took") -> BufferedHistogram:
    instrument = provider.get_meter("test").create_histogram(
        name, explicit_bucket_boundaries_advisory=[1.0, 2.0]
    )
    return BufferedHistogram(instrument, buffer)


def test_a_collection_has_every_value_recorded_before_it_and_each_once(
    provider: MeterProvider, readers: list[InMemoryMetricReader], buffer: Buffer
) -> None:
    took = histogram_of(provider, buffer)
    cumulative, delta = readers
    for number in (1, 2, 3):
        took.record(0.5, {"n": str(number)}, None)
        assert count_of(collect(cumulative)["took"]) == number
        assert count_of(collect(delta)["took"]) == 1
    assert "took" not in collect(delta)


def test_no_value_is_lost_or_doubled_while_threads_record_and_readers_collect(
    provider: MeterProvider, readers: list[InMemoryMetricReader], buffer: Buffer
) -> None:
    took = histogram_of(provider, buffer)

    def record_many() -> None:
        for _ in range(3000):
            took.record(1.0, NO_ATTRIBUTES, None)

    threads = [threading.Thread(target=record_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    cumulative, delta = readers
    totals, of_deltas = [0], 0
    while any(thread.is_alive() for thread in threads):
        totals.append(count_of(collect(cumulative).get("took", [])))
        of_deltas += count_of(collect(delta).get("took", []))
    totals.append(count_of(collect(cumulative)["took"]))
    of_deltas += count_of(collect(delta).get("took", []))
    assert totals == sorted(totals)
    assert totals[-1] == of_deltas == 4 * 3000


def test_a_collection_waits_for_values_that_another_thread_is_recording(
    provider: MeterProvider, readers: list[InMemoryMetricReader], buffer: Buffer
) -> None:
    took = histogram_of(provider, buffer)
    instrument = Paused(took)
    for _ in range(3):
        took.record(1.0, NO_ATTRIBUTES, None)
    assert instrument.is_in.wait(PATIENCE)  # our thread has taken the first
    counted: list[int] = []
    collecting = threading.Thread(
        target=lambda: counted.append(count_of(collect(readers[0])["took"]))
    )
    collecting.start()
    collecting.join(0.1)
    assert not counted
    instrument.may_go_on.set()
    collecting.join(PATIENCE)
    assert counted == [3]


class Paused:
    """Makes the SDK's first recording wait until it may go on."""

    def __init__(self, histogram: BufferedHistogram) -> None:
        self.is_in = threading.Event()
        self.may_go_on = threading.Event()
        record = histogram._instrument.record

        def paused(*value: Any) -> None:
            if not self.is_in.is_set():
                self.is_in.set()
                assert self.may_go_on.wait(PATIENCE)
            record(*value)

        histogram._record = paused


def test_values_are_recorded_without_a_collection(provider: MeterProvider) -> None:
    buffer = Buffer(interval=0.001)
    took = histogram_of(provider, buffer)
    recorded = threading.Event()
    took._record = lambda *_: recorded.set()
    for _ in range(3):
        took.record(1.0, NO_ATTRIBUTES, None)
        assert recorded.wait(PATIENCE)
        recorded.clear()
        deadline = time.monotonic() + PATIENCE
        while buffer.due != 1:  # until our thread sleeps again
            assert time.monotonic() < deadline
            time.sleep(0.001)


def test_who_is_recording_may_have_all_recorded_in_the_midst_of_it(
    provider: MeterProvider, readers: list[InMemoryMetricReader], buffer: Buffer
) -> None:
    # As a handler of SIGTERM that flushes does.
    took = histogram_of(provider, buffer)
    record = took._instrument.record

    def interrupted(*value: Any) -> None:
        buffer.record_waiting()
        record(*value)

    took._record = interrupted
    for _ in range(10):
        took.record(1.0, NO_ATTRIBUTES, None)
    recording = threading.Thread(target=buffer.record_waiting, daemon=True)
    recording.start()
    recording.join(PATIENCE)
    assert not recording.is_alive()
    assert count_of(collect(readers[0])["took"]) == 10


def test_where_too_many_wait_the_thread_that_adds_one_records_some(
    provider: MeterProvider, readers: list[InMemoryMetricReader]
) -> None:
    buffer = Buffer(full=100, share=10, interval=3600)
    took = histogram_of(provider, buffer)
    most = 0
    for _ in range(1000):
        took.record(1.0, NO_ATTRIBUTES, None)
        most = max(most, len(buffer.waiting))
    assert most <= 100
    buffer.record_waiting()
    assert count_of(collect(readers[0])["took"]) == 1000


def test_an_sdk_that_hangs_costs_the_oldest_values_and_neither_time_nor_memory(
    provider: MeterProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "reraise", False)
    before = faults.count
    buffer = Buffer(full=100)
    took = histogram_of(provider, buffer)
    instrument = Paused(took)
    took.record(1.0, NO_ATTRIBUTES, None)
    assert instrument.is_in.wait(PATIENCE)
    waits = []
    recording = buffer._recording

    class Counted:
        def acquire(self, **patience: float) -> bool:
            waits.append(patience)
            return recording.acquire(**patience)  # type: ignore[arg-type]

    buffer._recording = Counted()  # type: ignore[assignment]
    for _ in range(100_000):
        took.record(1.0, NO_ATTRIBUTES, None)
    buffer._recording = recording
    assert len(waits) < 20
    assert len(buffer.waiting) == 1600
    assert faults.count == before + 1
    instrument.may_go_on.set()
    buffer.record_waiting()
    took.record(1.0, NO_ATTRIBUTES, None)
    assert len(buffer.waiting) < 100


def test_a_value_that_cannot_be_recorded_is_counted_and_the_others_are_recorded(
    provider: MeterProvider,
    readers: list[InMemoryMetricReader],
    buffer: Buffer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faults, "reraise", False)
    before = faults.count
    took, other = histogram_of(provider, buffer), histogram_of(provider, buffer, "other")

    def refuse(*_: Any) -> None:
        raise ValueError("no")

    took._record = refuse
    for _ in range(10):
        took.record(1.0, NO_ATTRIBUTES, None)
        other.record(1.0, NO_ATTRIBUTES, None)
    assert count_of(collect(readers[0])["other"]) == 10
    assert faults.count == before + 10


def test_buckets_include_their_upper_edge(
    provider: MeterProvider, readers: list[InMemoryMetricReader], buffer: Buffer
) -> None:
    took = histogram_of(provider, buffer)
    for value in (1.0, 1.0000001, 2.0, 2.1):
        took.record(value, NO_ATTRIBUTES, None)
    (point,) = collect(readers[0])["took"]
    assert point.bucket_counts == (1, 2, 1)


def test_an_exemplar_has_the_span_of_its_value_and_not_of_who_records_it(
    provider: MeterProvider, readers: list[InMemoryMetricReader], buffer: Buffer
) -> None:
    took = histogram_of(provider, buffer)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    unsampled = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False).get_tracer("test")
    spans = {}
    for value in (0.5, 1.5):
        spans[value] = tracer.start_span("call")
        took.record(value, NO_ATTRIBUTES, trace.set_span_in_context(spans[value], Context()))
    took.record(2.5, NO_ATTRIBUTES, trace.set_span_in_context(unsampled.start_span("call")))
    took.record(3.5, NO_ATTRIBUTES, None)
    with tracer.start_as_current_span("of who collects"):
        (point,) = collect(readers[0])["took"]
    assert {e.value: (e.trace_id, e.span_id) for e in point.exemplars} == {
        value: (span.get_span_context().trace_id, span.get_span_context().span_id)
        for value, span in spans.items()
    }


def test_a_value_without_a_context_is_in_no_trace_even_if_all_become_exemplars(
    buffer: Buffer,
) -> None:
    reader = InMemoryMetricReader()
    provider = provider_of([reader], buffer, exemplar_filter=AlwaysOnExemplarFilter())
    took = histogram_of(provider, buffer)
    took.record(0.5, NO_ATTRIBUTES, None)
    took.record(1.5, NO_ATTRIBUTES, Context())
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("of who collects"):
        (point,) = collect(reader)["took"]
    assert [(e.value, e.trace_id, e.span_id) for e in point.exemplars] == [
        (0.5, None, None),
        (1.5, None, None),
    ]


def test_nothing_is_kept_where_nobody_listens(buffer: Buffer) -> None:
    took = histogram_of(NoOpMeterProvider(), buffer)
    took.record(1.0, NO_ATTRIBUTES, None)
    assert not buffer.waiting


def test_values_of_several_providers_share_a_buffer(
    provider: MeterProvider, readers: list[InMemoryMetricReader], buffer: Buffer
) -> None:
    other_reader = InMemoryMetricReader()
    other = provider_of([other_reader], buffer)
    for owner, times in ((provider, 2), (other, 3)):
        took = histogram_of(owner, buffer)
        for _ in range(times):
            took.record(1.0, NO_ATTRIBUTES, None)
    assert count_of(collect(other_reader)["took"]) == 3
    assert count_of(collect(readers[0])["took"]) == 2
