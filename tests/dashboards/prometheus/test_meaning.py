# SPDX-License-Identifier: Apache-2.0
"""What panels show of series that are made for it, on the real promtool."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent_kernel_otel import semconv
from agent_kernel_otel.dashboards.kelpie import INVOCATION_DURATION, UP, UPTIME
from tests.alerts.cases.calls import grants, invocations
from tests.alerts.cases.case import absent, flat, rising, series, then
from tests.alerts.cases.denials import denials
from tests.dashboards.packaged import DASHBOARDS, expressions, filled
from tests.dashboards.prometheus.asking import ALL
from tests.prometheus.server import program

SHOWN = 10
"""Minutes of the dashboard's range."""
ASKED_AT = 30
"""Minutes after the first sample."""
SESSION = {semconv.SESSION: "nightly"}
ELSEWHERE = {"instance": "shop-2"}


@dataclass(frozen=True)
class Case:
    """Series, and what a panel shows of them.

    Attributes:
        panel: Names of its dashboard and of itself.
        title: What happened, in words.
        series: The samples of each series, one a minute.
        shows: The values of the panel's first query, by their labels.
    """

    panel: tuple[str, str]
    title: str
    series: Mapping[str, str]
    shows: Mapping[str, float]


def _kelpie(server: str, samples: str, uptime: str) -> dict[str, str]:
    labels = {"job": "kelpie", "instance": server}
    return {
        series(UP.prometheus_name, labels): samples,
        series(UPTIME.prometheus_name, labels): uptime,
    }


def _busy(server: str, seconds_a_minute: float) -> dict[str, str]:
    name = f"{INVOCATION_DURATION.prometheus_name}_sum"
    labels = {"job": "kelpie", "instance": server, "operation": "create"}
    return {series(name, labels): rising(seconds_a_minute, ASKED_AT)}


def _exhausted(samples: str) -> dict[str, str]:
    return {series(semconv.BUDGET_EXHAUSTIONS, SESSION): samples}


def _budget(used: float, limit: float, labels: Mapping[str, str] = SESSION) -> dict[str, str]:
    return {
        series(semconv.BUDGET_CONSUMED, labels): flat(used, ASKED_AT),
        series(semconv.BUDGET_LIMIT, labels): flat(limit, ASKED_AT),
    }


_NODE_IS_DOWN = {series("up", {"job": "node", "instance": "node-1"}): flat(0, ASKED_AT)}
_SLOW_BUCKETS = {
    series(
        f"{semconv.INVOCATION_DURATION.prometheus_name}_bucket",
        {semconv.CAPABILITY_ID: "orders.list", "le": edge},
    ): flat(100, ASKED_AT)
    for edge in ("1000", "+Inf")
}
_ANSWERING = ("kelpie", "Not answering")
_REFUSED = ("weaver-budgets", "Refused for a spent budget")
_REASONS = ("weaver-policy", "Reasons")
_REASON = (
    '{agent_kernel_capability_id="orders.purge", agent_kernel_policy_phase="grant", '
    'agent_kernel_reason_code="missing_role"}'
)
CASES = (
    Case(_ANSWERING, "something that is no Kelpie is down", {
        **_kelpie("kelpie-1", flat(1, ASKED_AT), rising(60, ASKED_AT)), **_NODE_IS_DOWN,
    }, {"{}": 0}),
    Case(_ANSWERING, "one of two is down for some minutes", {
        **_kelpie("kelpie-1", flat(1, ASKED_AT), rising(60, ASKED_AT)),
        **_kelpie("kelpie-2", then(flat(1, 24), flat(0, 5)), then(rising(60, 24), "stale")),
    }, {"{}": 1}),
    Case(("kelpie", "Loop in use"), "three servers, each busy for less than half of the time", {
        **_busy("kelpie-1", 24), **_busy("kelpie-2", 27), **_busy("kelpie-3", 12),
    }, {"{}": 0.45}),
    Case(_REFUSED, "it was spent before all that is shown", _exhausted(flat(5, ASKED_AT)), {}),
    Case(_REFUSED, "it is spent for the first time", _exhausted(
        then(absent(25), flat(1, 5)),
    ), {"{}": 1}),
    Case(_REFUSED, "it was spent before, and is again", _exhausted(
        then(flat(5, 24), flat(7, 5)),
    ), {"{}": 2}),
    Case(_REASONS, "a reason that came up, and no more", {denials(): then(absent(25), flat(3, 5))}, {
        _REASON: 3,
    }),
    Case(_REASONS, "a reason of long ago", {denials(): flat(3, ASKED_AT)}, {}),
    Case(("weaver-overview", "Errors"), "a fifth fails, and a loop is refused a thousand times", {
        invocations("error"): rising(1, ASKED_AT),
        invocations("success"): rising(4, ASKED_AT),
        invocations("denied"): rising(1000, ASKED_AT),
        invocations("cancelled"): flat(0, ASKED_AT),
    }, {"{}": 0.2}),
    Case(("weaver-overview", "p95"), "nothing is called any more", _SLOW_BUCKETS, {}),
    Case(("weaver-budgets", "Fullest budget"), "half of one is used, and another has nothing to use", {
        **_budget(50, 100), **_budget(5, 0, {semconv.SESSION: "none"}),
    }, {"{}": 0.5}),
    Case(("weaver-budgets", "Tokens"), "two processes with a session of the same name", {
        **_budget(50, 100), **_budget(20, 200, {**SESSION, **ELSEWHERE}),
    }, {
        '{job="shop", instance="shop-1", agent_kernel_session="nightly"}': 0.5,
        '{job="shop", instance="shop-2", agent_kernel_session="nightly"}': 0.1,
    }),
    Case(("weaver-policy", "Unknown capabilities"), "one past the limit of metrics fails", {
        grants("error", "_OTHER", "READ"): rising(1, ASKED_AT),
        grants("error", "_OTHER", "_OTHER"): flat(0, ASKED_AT),
    }, {"{}": 0}),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.panel[1]}: {case.title}")
def test_a_panel_shows_what_happened(case: Case, tmp_path: Path) -> None:
    dashboard, title = case.panel
    asked = [text for panel, text in expressions(DASHBOARDS[dashboard]) if panel["title"] == title]
    expression = filled(asked[0], ALL, window="5m", shown=f"{SHOWN}m")
    test = {
        "interval": "1m",
        "input_series": [{"series": k, "values": v} for k, v in case.series.items()],
        "promql_expr_test": [
            {
                "expr": f"round({expression}, 0.01)",
                "eval_time": f"{ASKED_AT}m",
                "exp_samples": [{"labels": k, "value": v} for k, v in case.shows.items()],
            }
        ],
    }
    file = tmp_path / "case.json"  # which is YAML, too
    file.write_text(json.dumps({"evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
