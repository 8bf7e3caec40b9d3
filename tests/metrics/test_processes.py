# SPDX-License-Identifier: Apache-2.0
"""Nothing is lost at the end of a process or at a fork, and no thread is there for nothing."""

from __future__ import annotations

import os

import pytest

from tests.metrics.collecting import run

SETTING = """
import _thread, atexit, json, os, sys, threading, time
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader, MetricExporter, MetricExportResult, PeriodicExportingMetricReader)
from agent_kernel_otel import counts
from agent_kernel_otel.metrics import metrics_for

SERIES = ("agent_kernel.invocation_duration", "a", "READ", "success")

def instruments(provider=None):
    return metrics_for("test", "weaver_kernel", provider, "info")

def use(metrics, times):
    group = counts.group_of("weaver_kernel")
    for _ in range(times):
        group.add(("agent_kernel.invocations", *SERIES[1:]))
        metrics.invocation_duration.record(1.0, metrics.attributes(SERIES), None)

def total(data):
    found = {"agent_kernel.invocation_duration": 0, "agent_kernel.invocations": 0}
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    found[metric.name] += getattr(point, "count", 0) or getattr(point, "value", 0)
    return list(found.values())

class Keeping(MetricExporter):
    shown = [0, 0]
    def export(self, metrics_data, timeout_millis=10_000, **_):
        Keeping.shown = total(metrics_data)
        return MetricExportResult.SUCCESS
    def force_flush(self, timeout_millis=10_000):
        return True
    def shutdown(self, timeout_millis=30_000, **_):
        pass

def say_at_the_end():
    # Exit handlers run in the opposite order: this one after the provider's.
    atexit.register(lambda: print(json.dumps(Keeping.shown), flush=True))
"""

HAS_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
STOCK = "reader = PeriodicExportingMetricReader(Keeping())"
OURS = """
from agent_kernel_otel.pipeline.metric_reader import PunctualMetricReader
reader = PunctualMetricReader(Keeping())
"""
READERS = pytest.mark.parametrize("reader", [STOCK, OURS], ids=["stock", "ours"])


@READERS
@pytest.mark.parametrize(
    "end",
    ["", "provider.shutdown()", "provider.force_flush(); provider.shutdown()", "sys.exit(0)"],
    ids=["exit", "shutdown", "flush", "sys.exit"],
)
def test_the_last_values_are_exported(reader: str, end: str) -> None:
    script = f"""
{SETTING}
say_at_the_end()
{reader}
provider = MeterProvider([reader])
metrics.set_meter_provider(provider)
use(instruments(), 1000)
{end}
"""
    assert run(script) == [1000, 1000]


def test_values_recorded_by_exit_handlers_before_the_provider_ends_are_exported() -> None:
    script = f"""
{SETTING}
say_at_the_end()
{STOCK}
provider = MeterProvider([reader])
mine = instruments(provider)
atexit.register(lambda: use(mine, 2000))
"""
    assert run(script)[0] == 2000


def test_a_scrape_has_all_values_so_far() -> None:
    pytest.importorskip("prometheus_client")
    script = f"""
{SETTING}
from prometheus_client import REGISTRY, generate_latest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
provider = MeterProvider([PrometheusMetricReader()])
mine = instruments(provider)
group = counts.group_of("weaver_kernel", provider)
shown = []
for number in range(1, 4):
    group.add(("agent_kernel.invocations", *SERIES[1:]))
    mine.invocation_duration.record(5.0, mine.attributes(SERIES), None)
    lines = generate_latest(REGISTRY).decode().splitlines()
    shown.append([
        float(line.split()[-1]) for line in lines
        if line.startswith(("agent_kernel_invocations_total", "agent_kernel_invocation_duration_milliseconds_count"))
        or ("_bucket" in line and ('le="5"' in line or 'le="1"' in line))
    ])
print(json.dumps(shown))
"""
    for number, values in enumerate(run(script), start=1):
        assert sorted(values) == [0.0, number, number, number]


def test_no_thread_is_started_where_nothing_is_recorded() -> None:
    script = f"""
{SETTING}
started = []
start = _thread.start_new_thread
_thread.start_new_thread = lambda *of: (started.append(of), start(*of))
mine = instruments()
use(mine, 1000)                      # nobody listens yet
shown = [len(started)]
provider = MeterProvider([InMemoryMetricReader()])
metrics.set_meter_provider(provider)
for times in (0, 1, 1000):
    use(mine, times)
    shown.append(len(started))
print(json.dumps(shown))
"""
    assert run(script) == [0, 0, 1, 1]


def test_where_no_thread_can_be_started_nothing_is_lost() -> None:
    script = f"""
{SETTING}
def refuse(*_):
    raise RuntimeError("can't create new thread at interpreter shutdown")
_thread.start_new_thread = refuse
reader = InMemoryMetricReader()
mine = instruments(MeterProvider([reader], shutdown_on_exit=False))
use(mine, 10_000)
from agent_kernel_otel.histograms import _buffer
waiting = len(_buffer.waiting)
print(json.dumps([waiting < 1000, total(reader.get_metrics_data())[0]]))
"""
    assert run(script) == [True, 10_000]


@HAS_FORK
def test_parent_and_child_have_their_own_values_whatever_happens_at_the_fork() -> None:
    # Our thread and a collecting one are busy at each fork.
    script = f"""
import warnings
warnings.simplefilter("ignore")  # of a fork with threads, which is what this is about
{SETTING}
reader = InMemoryMetricReader()
provider = MeterProvider([reader], shutdown_on_exit=False)
metrics.set_meter_provider(provider)
mine = instruments()
children, used = [], 0
for number in range(20):
    use(mine, 300 + number)
    used += 300 + number
    if number % 2:
        time.sleep(0.1)      # our thread's round begins about now
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        waiting = mine.invocation_duration._waiting
        at_first = len(waiting)
        use(mine, 700)
        deadline = time.monotonic() + 20
        while waiting and time.monotonic() < deadline:
            time.sleep(0.01)     # a thread of the child's own records them
        own = counts.group_of("weaver_kernel").totals().values()
        os.write(write, json.dumps([at_first, len(waiting), sum(own)]).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        children.append(json.load(answer))
    os.waitpid(pid, 0)
print(json.dumps([children, total(reader.get_metrics_data()), used]))
"""
    children, (recorded, counted), used = run(script)
    assert recorded == counted == used
    assert children == [[0, 0, 700]] * 20


@HAS_FORK
def test_a_child_finds_no_lock_of_the_sdk_held_because_our_thread_was_recording() -> None:
    script = f"""
import warnings
warnings.simplefilter("ignore")
{SETTING}
import signal
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter
from opentelemetry.sdk.metrics._internal.exemplar import SimpleFixedSizeExemplarReservoir
from opentelemetry.sdk.metrics.view import View

is_in = threading.Event()

class Slow(SimpleFixedSizeExemplarReservoir):
    def _find_bucket_index(self, *value):
        is_in.set()
        time.sleep(0.1)     # with the SDK's locks held
        return super()._find_bucket_index(*value)

reader = InMemoryMetricReader()
provider = MeterProvider(
    [reader], shutdown_on_exit=False, exemplar_filter=AlwaysOnExemplarFilter(),
    views=[View(instrument_name="*", exemplar_reservoir_factory=lambda _: lambda **_: Slow())])
metrics.set_meter_provider(provider)
mine = instruments()
use(mine, 1)
assert is_in.wait(20)
read, write = os.pipe()
pid = os.fork()
if not pid:
    signal.alarm(20)
    before = total(reader.get_metrics_data())[0]
    use(mine, 2)
    os.write(write, json.dumps(total(reader.get_metrics_data())[0] - before).encode())
    os._exit(0)
os.close(write)
with os.fdopen(read) as answer:
    child = answer.read()
os.waitpid(pid, 0)
use(mine, 2)
print(json.dumps([child, total(reader.get_metrics_data())[0]]))
"""
    assert run(script) == ["2", 3]


@HAS_FORK
def test_a_child_of_the_distro_exports_its_own_values_only() -> None:
    script = f"""
import warnings
warnings.simplefilter("ignore")
{SETTING}
from agent_kernel_otel.distro import assembly
reader = InMemoryMetricReader()
provider = assembly.SUBSTITUTES["MeterProvider"](metric_readers=[reader])
metrics.set_meter_provider(provider)
mine = instruments()
use(mine, 500)
before = total(reader.get_metrics_data())
use(mine, 100)
read, write = os.pipe()
pid = os.fork()
if not pid:
    use(mine, 30)
    os.write(write, json.dumps(total(reader.get_metrics_data())).encode())
    os._exit(0)
os.close(write)
with os.fdopen(read) as answer:
    child = json.load(answer)
os.waitpid(pid, 0)
after = total(reader.get_metrics_data())
provider.shutdown()
print(json.dumps([before, child, after]))
"""
    assert run(script) == [[500, 500], [30, 30], [600, 600]]
