# SPDX-License-Identifier: Apache-2.0
"""The registry of names: well formed, without contradictions, and true to the conventions."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import opentelemetry.semconv
import pytest

from agent_kernel_otel import InstrumentationConfig, semconv
from agent_kernel_otel.pipeline import ledger
from agent_kernel_otel.pipeline.meter_state import SERIES_LIMIT
from agent_kernel_otel.weaver.outcomes import category_of
from agent_kernel_otel.weaver.targets import OPERATIONS, SEAMS

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*(\.[a-z][a-z0-9]*(_[a-z0-9]+)*)+")


def constants() -> dict[str, str]:
    return {
        name: value
        for name, value in vars(semconv).items()
        if name.isupper() and isinstance(value, str)
    }


def conventions() -> dict[str, set[str]]:
    """Names of attributes in the installed package of conventions, by their constants' names."""
    found: dict[str, set[str]] = {}
    # Read, not imported: importing the modules of names in development warns of that.
    for module in Path(opentelemetry.semconv.__path__[0]).rglob("*_attributes.py"):
        for name, value in re.findall(r'^([A-Z_0-9]+): Final = "(.+)"', module.read_text(), re.M):
            found.setdefault(name, set()).add(value)
    return found


@pytest.mark.parametrize(
    "name", [*semconv.SPANS, *semconv.EVENTS, *semconv.ATTRIBUTES, *semconv.METRICS]
)
def test_a_name_follows_the_naming_rules(name: str) -> None:
    assert NAME.fullmatch(name)


def test_names_are_unique_across_spans_events_and_attributes() -> None:
    names = [*semconv.SPANS, *semconv.EVENTS, *semconv.ATTRIBUTES]
    assert len(names) == len(set(names))
    values = list(constants().values())
    assert len(values) == len(set(values))


def test_no_name_is_the_namespace_of_another() -> None:
    for names in (semconv.SPANS, semconv.ATTRIBUTES, semconv.METRICS):
        inside = {".".join(name.split(".")[:n]) for name in names for n in range(1, 6)}
        proper = {n for n in names if any(other.startswith(f"{n}.") for other in names)}
        assert proper <= inside
        # A name that is also a namespace cannot be stored as a nested document.
        assert proper == set()


def test_each_registered_name_has_a_constant() -> None:
    registered = {*semconv.SPANS, *semconv.EVENTS, *semconv.ATTRIBUTES}
    assert registered <= set(constants().values())
    assert {m for m in vars(semconv).values() if isinstance(m, semconv.MetricDefinition)} == set(
        semconv.METRICS.values()
    )


@pytest.mark.parametrize("attribute", semconv.ATTRIBUTES.values(), ids=lambda a: a.name)
def test_an_attribute_is_on_spans_events_or_metrics_that_exist(attribute: Any) -> None:
    on_metrics = [m for m in semconv.METRICS.values() if attribute.name in m.attributes]
    assert attribute.on or on_metrics
    assert set(attribute.on) <= {*semconv.SPANS, *semconv.EVENTS}
    assert len(attribute.on) == len(set(attribute.on))
    assert attribute.description.endswith(".")
    assert not attribute.values or attribute.type == "string"


def test_a_spans_parent_and_an_operations_exception_event_exist() -> None:
    assert set(semconv.EXCEPTION_EVENTS) <= set(semconv.SPANS)
    assert set(semconv.EXCEPTION_EVENTS.values()) <= set(semconv.EVENTS)
    assert {target.span for target in OPERATIONS} == set(semconv.EXCEPTION_EVENTS)
    assert {name for seam in SEAMS for name in seam.operations} <= set(semconv.SPANS)


@pytest.mark.parametrize(
    "name", [name for name in semconv.ATTRIBUTES if not name.startswith("agent_kernel.")]
)
def test_a_name_of_the_conventions_is_what_their_package_says(name: str) -> None:
    constant = name.upper().replace(".", "_")
    assert conventions().get(constant) == {name}


def test_content_is_never_known_at_the_start() -> None:
    # A sampler sees what is there at the start; content is added after it has decided.
    assert not [a.name for a in semconv.ATTRIBUTES.values()
                if a.sensitivity == "content" and a.at_start]  # fmt: skip


UNITS = {"ms", "s", "By", ""}
"""What is measured; what is counted is in braces. A `1` would be called a ratio by some exporters."""
TIMES = {"duration", "time"}


@pytest.mark.parametrize("metric", semconv.METRICS.values(), ids=lambda m: m.name)
class TestAMetric:
    def test_has_a_unit_that_fits_its_kind_and_is_not_in_its_name(self, metric: Any) -> None:
        words = set(re.split(r"[._]", metric.name))
        assert metric.unit in UNITS or re.fullmatch(r"\{[a-z]+(_[a-z]+)*\}", metric.unit)
        assert not words & {"total", "count", "seconds", "milliseconds", "ms", "bytes", "ratio"}
        assert bool(words & TIMES) == (metric.unit in {"ms", "s"})
        assert (metric.unit == "ms") <= metric.name.startswith("agent_kernel.")
        assert bool(metric.unit) != (metric is semconv.INFO)

    def test_counters_and_up_down_counters_count_something(self, metric: Any) -> None:
        if metric.instrument in {"counter", "updowncounter"}:
            assert metric.unit.startswith("{")

    def test_says_what_it_is_in_one_line(self, metric: Any) -> None:
        assert metric.description.endswith(".")
        assert "\n" not in metric.description
        assert "`" not in metric.description  # it is shown by backends as plain text

    def test_has_known_attributes_once_each_and_none_that_identifies(self, metric: Any) -> None:
        assert len(metric.attributes) == len(set(metric.attributes))
        assert semconv.SYSTEM not in metric.attributes
        for key in metric.attributes:
            definition = semconv.ATTRIBUTES[key]
            assert definition.sensitivity == "none", key
            assert definition.type == "string", key

    def test_has_few_buckets_in_order_if_it_is_a_histogram(self, metric: Any) -> None:
        assert bool(metric.bounds) == (metric.instrument == "histogram") == (not metric.observable)
        assert all(low < high for low, high in pairwise(metric.bounds))
        if metric.unit == "ms":
            assert len(metric.bounds) <= (10 if metric.level == "info" else 12)

    def test_has_no_more_attribute_sets_than_an_instrument_keeps_apart(self, metric: Any) -> None:
        if metric.level != "opt-in":
            assert semconv.attribute_sets(metric) <= SERIES_LIMIT


def test_a_process_exports_at_most_10_000_series_by_default() -> None:
    default = [metric for metric in semconv.METRICS.values() if metric.level == "info"]
    assert sum(map(semconv.prometheus_series, default)) <= 10_000


def test_prometheus_names_are_all_different() -> None:
    names = [metric.prometheus_name for metric in semconv.METRICS.values()]
    assert len(names) == len(set(names))


def test_what_follows_another_value_adds_no_series_for_each_of_them() -> None:
    # 100 capabilities with one safety class each, and others that may have any of four.
    assert semconv.attribute_sets(semconv.GRANTS) == (100 + 4) * 4
    assert semconv.prometheus_series(semconv.INVOCATION_DURATION) == (100 + 4) * 4 * (10 + 3)
    assert semconv.attribute_sets(semconv.POLICY_DENIALS) == semconv.POLICY_DENIALS.series_limit


def test_the_execute_tool_buckets_are_those_of_the_convention() -> None:
    assert semconv.EXECUTE_TOOL_DURATION.bounds == (
        0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
    )  # fmt: skip


def test_limits_and_closed_sets_are_those_that_the_code_has() -> None:
    assert InstrumentationConfig().capability_id_limit == semconv.CAPABILITY_ID_LIMIT
    signals = (ledger.TRACES, ledger.METRICS, ledger.LOGS)
    assert semconv.ATTRIBUTES[semconv.SIGNAL].values == signals
    assert semconv.ATTRIBUTES[semconv.DROP_REASON].values == ("refused", *ledger.REASONS)
    known = set(semconv.KNOWN_REASON_CODES) - {semconv.ABSENT_REASON}
    assert {code for code in known if category_of(code) == "other"} == set()


def test_the_names_need_no_opentelemetry() -> None:
    code = "import sys, agent_kernel_otel.semconv; print(*sys.modules, sep='\\n')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "agent_kernel_otel.semconv.metrics" in run.stdout.split()
    assert not re.search(r"^opentelemetry", run.stdout, re.MULTILINE)
