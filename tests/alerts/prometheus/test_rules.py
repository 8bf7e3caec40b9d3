# SPDX-License-Identifier: Apache-2.0
"""Every alert on the real promtool: it fires when it should, and else is silent."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent_kernel_otel import semconv
from tests.alerts.cases import CASES
from tests.alerts.cases.case import Case, flat, then
from tests.alerts.prometheus.promtool import verdict
from tests.alerts.rules import ALERTS_FILE, RECORDING_FILE
from tests.prometheus.server import program

GAUGES = {
    "up",
    "otelcol_exporter_queue_size",
    "otelcol_exporter_queue_capacity",
    *(m.prometheus_name for m in semconv.METRICS.values() if m.instrument != "counter"),
}
COUNTED = list(
    {
        case.about: case
        for case in CASES
        if case.fires and not {series.partition("{")[0] for series in case.series} <= GAUGES
    }.values()
)
"""A case of each alert that asks for counters."""


def _with_counters(case: Case, title: str, samples: str) -> Case:
    """The same, with other samples of all that only rises."""
    return case.silently(
        title,
        {
            series: kept if series.partition("{")[0] in GAUGES else samples
            for series, kept in case.series.items()
        },
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.about}: {case.title}")
def test_an_alert_fires_when_it_should_and_else_is_silent(case: Case, tmp_path: Path) -> None:
    assert verdict(case, tmp_path) == ""


@pytest.mark.parametrize("case", COUNTED, ids=lambda case: case.about)
def test_an_alert_is_silent_without_traffic_whatever_was_counted_before(
    case: Case, tmp_path: Path
) -> None:
    idle = _with_counters(case, "no traffic", flat(1000, case.minutes))
    assert verdict(idle, tmp_path) == ""


@pytest.mark.parametrize("case", COUNTED, ids=lambda case: case.about)
def test_an_alert_is_silent_when_counters_begin_anew(case: Case, tmp_path: Path) -> None:
    # Four minutes ago, which is within all windows.
    begun_anew = then(flat(100_000, case.minutes - 5), flat(0, 4))
    assert verdict(_with_counters(case, "counters begin anew", begun_anew), tmp_path) == ""


@pytest.mark.parametrize("file", [RECORDING_FILE, ALERTS_FILE], ids=lambda file: file.name)
def test_promtool_finds_no_fault_with_the_rules(file: Path) -> None:
    subprocess.run([program("promtool"), "check", "rules", str(file)], check=True)
