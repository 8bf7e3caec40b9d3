# SPDX-License-Identifier: Apache-2.0
"""Three ways to Prometheus, one truth: by name, by label and by value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agent_kernel_otel import semconv
from tests.dashboards.packaged import DASHBOARDS, KELPIE, WEAVER, Json, expressions, metrics
from tests.dashboards.prometheus.asking import ALL, Asked
from tests.dashboards.prometheus.test_panels import STILL
from tests.stack.asking import eventually
from tests.stack.conftest import INSTANCE, Worked

OURS = '__name__=~"(agent_kernel|gen_ai)_.+"'
GOES_ON = ("agent_kernel_telemetry_",)
"""Counts of what is sent, which is sent as well."""
NOT_CONTRACT = {"__name__", "job", "instance", "way", "agent_kernel_system", "exported_job"}

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]
WAYS: dict[str, Callable[[Worked], Any]] = {
    "scrape of the Collector": lambda w: w.prometheus.query(f'{{{OURS},instance="{INSTANCE}"}}'),
    "scrape of the app": lambda w: w.others.query(f'{{{OURS},instance="{INSTANCE}",way="page"}}'),
    "remote write": lambda w: w.others.query(
        f'{{{OURS},instance="{INSTANCE}",way="remote_write"}}'
    ),
}


def _counted(worked: Worked) -> Values:
    """What KernelStats say, under the names that Prometheus has for it."""
    values: Values = {}
    for name, *attributes, number in worked.counted:
        metric = semconv.METRICS[name]
        labels = {
            key.replace(".", "_"): value
            for key, value in zip(metric.attributes, attributes, strict=True)
            if value is not None
        }
        if number:
            values[metric.prometheus_name, frozenset(labels.items())] = number
    return values


def _held(worked: Worked, way: str, suffixes: tuple[str, ...]) -> Values:
    """What Prometheus has, of names with these endings, less what never rests."""
    return {
        (
            labels["__name__"],
            frozenset((k, v) for k, v in labels.items() if k not in NOT_CONTRACT),
        ): round(value, 6)  # the Collector's page rounds sums
        for labels, value in WAYS[way](worked)
        if labels["__name__"].endswith(suffixes)
        and not labels["__name__"].startswith(GOES_ON)
        and value
    }


@pytest.mark.parametrize("way", WAYS)
def test_every_counter_has_the_value_that_was_counted(way: str, worked: Worked) -> None:
    counted = _counted(worked)
    assert len(counted) > 40
    try:
        eventually(lambda: _held(worked, way, ("_total",)) == counted)
    except TimeoutError:
        assert _held(worked, way, ("_total",)) == counted


def test_histograms_are_the_same_in_all_ways(worked: Worked) -> None:
    def held() -> list[Values]:
        return [_held(worked, way, ("_count", "_sum")) for way in WAYS]

    try:
        eventually(lambda: held()[0] == held()[1] == held()[2])
    except TimeoutError:
        collector, page, pushed = held()
        assert collector == page == pushed


def test_the_names_are_the_same_in_all_ways_and_all_of_the_reference(worked: Worked) -> None:
    found = {way: {labels["__name__"] for labels, _ in ask(worked)} for way, ask in WAYS.items()}
    reference = {name for name in metrics() if name.startswith(("agent_kernel_", "gen_ai_"))}
    lost = {semconv.TELEMETRY_DROPPED.prometheus_name}  # this instance lost nothing
    for way, names in found.items():
        assert names - lost == reference - lost, way


@pytest.mark.parametrize("name", WEAVER)
def test_every_query_of_a_dashboard_returns_data(name: str, worked: Worked) -> None:
    _shows_something(DASHBOARDS[name], worked.asked)


@pytest.mark.parametrize("name", KELPIE)
def test_every_query_on_kelpie_returns_data_of_its_own_page(name: str, worked: Worked) -> None:
    _shows_something(DASHBOARDS[name], worked.kelpie)


def _shows_something(dashboard: Json, asked: Asked) -> None:
    empty = []
    for panel, expression in expressions(dashboard):
        values = asked.values(panel, expression, ALL)
        if not values or not (any(values) or panel["title"] in STILL):
            empty.append((panel["title"], expression))
    assert empty == []
