# SPDX-License-Identifier: Apache-2.0
"""The instruments over the counts: each value once, all of one moment, and none where none is known."""

from __future__ import annotations

import gc
import json
import threading
import tracemalloc
import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics import ObservableCounter as SdkCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader

from agent_kernel_otel import counts, semconv
from agent_kernel_otel.cardinality import Bounded
from agent_kernel_otel.counts import CountGroup
from agent_kernel_otel.faults import faults
from agent_kernel_otel.metrics import Metrics, metrics_for
from tests.metrics.collecting import collect, count_of, run

SCOPE = "agent_kernel_otel.test"
SYSTEM = "weaver_kernel"
INVOCATIONS = semconv.INVOCATIONS.name
DURATION = semconv.INVOCATION_DURATION.name
ACTIVE = semconv.INVOCATIONS_ACTIVE.name
CALL = ("tasks.list", "READ", "success")


class Setting:
    """A provider with instruments, and the counts that they read."""

    def __init__(self, level: str = "info", *, gen_ai: bool = False, delta: bool = False) -> None:
        temporality: Any = AggregationTemporality.DELTA
        preferred: Any = {SdkHistogram: temporality, SdkCounter: temporality} if delta else None
        self.reader = InMemoryMetricReader(preferred_temporality=preferred)
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        metrics = metrics_for(SCOPE, SYSTEM, self.provider, level, gen_ai=gen_ai)
        assert metrics is not None
        self.metrics = metrics
        self.group = counts.group_of(SYSTEM, self.provider)

    def invoke(self, *labels: str) -> None:
        labels = labels or CALL
        self.group.add((INVOCATIONS, *labels))
        assert self.metrics.invocation_duration is not None
        attributes = self.metrics.attributes((DURATION, *labels))
        self.metrics.invocation_duration.record(5.0, attributes, None)

    def values(self, name: str) -> dict[tuple[Any, ...], float]:
        """Collected values by the labels in the order of the definition."""
        keys = semconv.METRICS[name].attributes
        return {
            tuple(point.attributes.get(key) for key in keys): point.value
            for point in collect(self.reader).get(name, [])
        }


def test_each_count_is_a_point_with_its_labels_and_the_system() -> None:
    setting = Setting()
    setting.group.add((semconv.DRIVER_ATTEMPTS.name, "memory", "error", "TimeoutError"))
    setting.group.add((semconv.DRIVER_ATTEMPTS.name, "memory", "success", None), 3)
    points = collect(setting.reader)[semconv.DRIVER_ATTEMPTS.name]
    assert [(point.value, dict(point.attributes)) for point in points] == [
        (
            1,
            {
                "agent_kernel.driver_id": "memory",
                "agent_kernel.status": "error",
                "error.type": "TimeoutError",
                "agent_kernel.system": SYSTEM,
            },
        ),
        (
            3,
            {
                "agent_kernel.driver_id": "memory",
                "agent_kernel.status": "success",
                "agent_kernel.system": SYSTEM,
            },
        ),
    ]


def _one(labels: tuple[str, ...]) -> list[tuple[int, tuple[str, ...]]]:
    return [(1, labels)]


def test_every_metric_of_a_kernel_has_an_instrument_of_its_kind_with_unit_and_description() -> None:
    setting = Setting("debug", gen_ai=True)
    for definition in semconv.METRICS.values():
        series = (definition.name, *("x" for _ in definition.attributes))
        if definition.instrument in {"counter", "updowncounter"}:
            setting.group.add(series)
        elif definition.instrument == "gauge":
            setting.metrics.observe(definition, partial(_one, series[1:]))
    for histogram in (
        setting.metrics.invocation_duration,
        setting.metrics.time_to_first_chunk,
        setting.metrics.policy_duration,
        setting.metrics.driver_duration,
        setting.metrics.firewall_duration,
        setting.metrics.execute_tool_duration,
    ):
        assert histogram is not None
        histogram.record(1.0, {}, None)
    data = setting.reader.get_metrics_data()
    assert data is not None
    collected = {m.name: m for m in data.resource_metrics[0].scope_metrics[0].metrics}
    expected = {d.name: d for d in semconv.METRICS.values() if "telemetry" not in d.name}
    assert collected.keys() == expected.keys()
    for name, metric in collected.items():
        definition = expected[name]
        assert (metric.unit, metric.description) == (definition.unit, definition.description)
        data_of: Any = metric.data
        if definition.instrument == "histogram":
            assert data_of.data_points[0].explicit_bounds == definition.bounds
        elif definition.instrument == "gauge":
            assert type(data_of).__name__ == "Gauge"
        else:
            assert data_of.is_monotonic == (definition.instrument == "counter")


def test_levels_add_histograms_once_and_take_none_away() -> None:
    setting = Setting()
    metrics = setting.metrics
    duration = metrics.invocation_duration
    assert duration is not None
    assert metrics.time_to_first_chunk is not None
    assert metrics.policy_duration is metrics.driver_duration is metrics.firewall_duration is None
    assert metrics.execute_tool_duration is None
    metrics.set_level("debug")
    stages = metrics.policy_duration, metrics.driver_duration, metrics.firewall_duration
    assert None not in stages
    assert metrics.execute_tool_duration is None
    metrics.set_level("info", gen_ai=True)
    assert metrics.execute_tool_duration is not None
    assert metrics.invocation_duration is duration
    assert stages == (metrics.policy_duration, metrics.driver_duration, metrics.firewall_duration)


@pytest.mark.parametrize("delta", [False, True], ids=["cumulative", "delta"])
def test_histogram_counts_equal_the_counter_in_every_collection(delta: bool) -> None:
    setting = Setting(delta=delta)
    shown = []
    for times in (3, 0, 2):
        for _ in range(times):
            setting.invoke()
        points = collect(setting.reader)
        counted = sum(point.value for point in points[INVOCATIONS])
        assert counted == count_of(points.get(DURATION, []))
        shown.append(counted)
    assert shown == ([3, 0, 2] if delta else [3, 3, 5])


def test_running_invocations_go_back_to_zero() -> None:
    setting = Setting()
    active = setting.group.active_cell((ACTIVE, "tasks.list"))
    active.number += 1
    assert setting.values(ACTIVE) == {("tasks.list",): 1}
    counts.count([], counts.process.generation, over=active)
    assert setting.values(ACTIVE) == {("tasks.list",): 0}


def test_all_counters_of_a_collection_are_of_one_moment() -> None:
    setting = Setting()
    metrics = (INVOCATIONS, semconv.GRANTS.name)
    cells = [setting.group.cell((name, *CALL)) for name in metrics]
    stop = threading.Event()

    def count() -> None:
        while not stop.is_set():
            counts.count(cells, counts.process.generation)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        for _ in range(50):
            points = collect(setting.reader)
            shown = [sum(p.value for p in points.get(n, [])) for n in metrics]
            assert shown[0] == shown[1]
    finally:
        stop.set()
        thread.join()


def test_what_is_to_be_done_before_a_collection_is_done_before_anything_is_read() -> None:
    setting = Setting()
    setting.metrics.before_collection(lambda: setting.group.cell((INVOCATIONS, *CALL)))
    assert setting.values(INVOCATIONS) == {CALL: 0}


def test_gauges_report_what_they_are_told_and_nothing_when_that_is_gone() -> None:
    setting = Setting()
    held: list[tuple[int, tuple[str]]] = [(7, ("handle_store",))]
    setting.metrics.observe(semconv.MEMORY_USAGE, lambda: held)
    assert setting.values(semconv.MEMORY_USAGE.name) == {("handle_store",): 7}
    held.clear()
    assert setting.values(semconv.MEMORY_USAGE.name) == {}


def test_a_callback_that_fails_reports_nothing_is_counted_and_hurts_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(faults, "reraise", False)
    setting = Setting()
    setting.invoke()

    def fail() -> Iterable[tuple[int, tuple[str | None, ...]]]:
        yield 5, ("handle_store",)
        raise OSError("no")

    setting.metrics.before_collection(lambda: 1 / 0)
    setting.metrics.observe(semconv.MEMORY_USAGE, fail)
    setting.metrics.observe(semconv.HANDLES_ACTIVE, lambda: [(2, ())])
    before = faults.count
    points = collect(setting.reader)
    assert semconv.MEMORY_USAGE.name not in points
    assert [point.value for point in points[semconv.HANDLES_ACTIVE.name]] == [2]
    assert [point.value for point in points[INVOCATIONS]] == [1]
    assert faults.count == before + 2
    assert not [r for r in caplog.records if r.name.startswith("opentelemetry")]


def test_counts_that_cannot_be_read_are_not_reported_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faults, "reraise", False)
    setting = Setting()
    setting.invoke()
    assert setting.values(INVOCATIONS) == {CALL: 1}
    with monkeypatch.context() as broken:
        broken.setattr(CountGroup, "totals", lambda _: 1 / 0)
        assert setting.values(INVOCATIONS) == {}
    assert setting.values(INVOCATIONS) == {CALL: 1}


def test_a_slow_callback_holds_up_no_call() -> None:
    setting = Setting()
    is_in, may_go_on = threading.Event(), threading.Event()

    def slow() -> list[tuple[int, tuple[()]]]:
        is_in.set()
        assert may_go_on.wait(20)
        return [(1, ())]

    setting.metrics.observe(semconv.HANDLES_ACTIVE, slow)
    collected: list[Any] = []
    collecting = threading.Thread(target=lambda: collected.append(collect(setting.reader)))
    collecting.start()
    assert is_in.wait(20)
    for _ in range(2000):
        setting.invoke()
    assert metrics_for(SCOPE, SYSTEM, setting.provider, "debug") is setting.metrics
    setting.metrics.observe(semconv.MEMORY_USAGE, list)
    may_go_on.set()
    collecting.join(20)
    assert semconv.HANDLES_ACTIVE.name in collected[0]
    assert count_of(collect(setting.reader)[DURATION]) == 2000


def test_asking_twice_gives_the_same_instruments_and_counts_nothing_twice() -> None:
    setting = Setting()
    again = metrics_for(SCOPE, SYSTEM, setting.provider, "info")
    assert again is setting.metrics

    def told() -> list[tuple[int, tuple[()]]]:
        return [(1, ())]

    for _ in range(2):
        again.observe(semconv.HANDLES_ACTIVE, told)
    setting.invoke()
    points = collect(setting.reader)
    assert [point.value for point in points[INVOCATIONS]] == [1]
    assert [point.value for point in points[semconv.HANDLES_ACTIVE.name]] == [1]
    assert count_of(points[DURATION]) == 1


def test_providers_have_instruments_of_their_own() -> None:
    one, other = Setting(), Setting()
    assert one.metrics is not other.metrics
    one.invoke()
    assert collect(other.reader) == {}
    assert one.values(INVOCATIONS) == {CALL: 1}


def test_kinds_of_kernel_have_instruments_of_their_own() -> None:
    setting = Setting()
    other = metrics_for("agent_kernel_otel.other", "agent_os", setting.provider, "info")
    assert other is not setting.metrics
    setting.invoke()
    counts.group_of("agent_os", setting.provider).add((INVOCATIONS, *CALL))
    points = collect(setting.reader)[INVOCATIONS]
    systems = {str(point.attributes["agent_kernel.system"]): point.value for point in points}
    assert systems == {"agent_os": 1, SYSTEM: 1}


def test_off_is_no_instruments() -> None:
    assert metrics_for(SCOPE, SYSTEM, None, "off") is None


def test_instruments_go_with_their_provider() -> None:
    setting = Setting()
    setting.invoke()
    collect(setting.reader)
    gone: list[weakref.ref[Any]] = [weakref.ref(setting.metrics), weakref.ref(setting.provider)]
    del setting
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_instruments_do_not_keep_their_provider() -> None:
    setting = Setting()
    metrics, provider = setting.metrics, weakref.ref(setting.provider)
    del setting
    gc.collect()
    assert provider() is None
    assert metrics.home is None


def test_many_distinct_ids_cost_little_memory() -> None:
    setting = Setting()
    ids = Bounded(100)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(100_000):
            setting.invoke(str(ids.label(f"capability {number}")), "READ", "success")
        points = collect(setting.reader)
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(points[INVOCATIONS]) == len(points[DURATION]) == 101
    assert sum(point.value for point in points[INVOCATIONS]) == 100_000
    assert count_of(points[DURATION]) == 100_000
    assert used < 10_000_000


LATE = f"""
import json
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from agent_kernel_otel import counts
from agent_kernel_otel.metrics import metrics_for

def use(metrics, group):
    group.add(("{INVOCATIONS}", *{CALL!r}))
    attributes = metrics.attributes(("{DURATION}", *{CALL!r}))
    metrics.invocation_duration.record(5.0, attributes, None)

reader = InMemoryMetricReader()
provider = MeterProvider([reader], shutdown_on_exit=False)
usual = counts.group_of("{SYSTEM}")

def show(*more):
    metrics = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    found = {{metric.name: metric.data.data_points for metric in metrics}}
    counted = [point.value for point in found["{INVOCATIONS}"]]
    times = [(point.count, list(point.explicit_bounds)) for point in found["{DURATION}"]]
    print(json.dumps([counted, times, *more]))
"""


def test_an_app_may_set_its_provider_late() -> None:
    script = f"""
{LATE}
early = metrics_for("test", "{SYSTEM}", None, "info")
use(early, usual)     # counted, but there is nothing yet that would take its time
metrics.set_meter_provider(provider)
use(early, usual)
late = metrics_for("test", "{SYSTEM}", None, "debug")
explicit = metrics_for("test", "{SYSTEM}", provider, "info")
show(early is late is explicit)
"""
    bounds = [float(bound) for bound in semconv.INVOCATION_DURATION.bounds]
    assert run(script) == [[2], [[1, bounds]], True]


def test_a_provider_given_first_and_made_global_later_reports_all_counts_once() -> None:
    script = f"""
{LATE}
globally = metrics_for("test", "{SYSTEM}", None, "info")
explicitly = metrics_for("test", "{SYSTEM}", provider, "info")
metrics.set_meter_provider(provider)
use(globally, usual)
use(explicitly, counts.group_of("{SYSTEM}", provider))
show()
"""
    ((counted,), ((times, _),)) = run(script)
    assert (counted, times) == (2, 2)


def test_the_reference_of_a_series_is_the_same_object_each_time() -> None:
    metrics = Metrics(SCOPE, SYSTEM, CountGroup(SYSTEM), MeterProvider(shutdown_on_exit=False))
    series = (semconv.EXECUTE_TOOL_DURATION.name, "tasks.list", "execute_tool", "function", None)
    attributes = metrics.attributes(series)
    assert attributes is metrics.attributes(series)
    assert json.loads(json.dumps(attributes)) == {
        "gen_ai.tool.name": "tasks.list",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.type": "function",
    }
