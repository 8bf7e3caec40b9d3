# SPDX-License-Identifier: Apache-2.0
"""The link of a line leads to the spans of what the line counts."""

from __future__ import annotations

import pytest

from agent_kernel_otel import semconv
from agent_kernel_otel.dashboards import weaver as dashboards
from agent_kernel_otel.dashboards.explore import search_for
from agent_kernel_otel.dashboards.promql import Expression, label
from tests.dashboards.prometheus.asking import Asked

LINKED = [
    pytest.param(panel.expressions[0], id=f"{dashboard.name}-{panel.title}")
    for dashboard in dashboards.DASHBOARDS
    for row in dashboard.rows
    for panel in row.panels
    if search_for(panel.expressions[0], dict.fromkeys(panel.expressions[0].by, ""))
]
UNNAMED = {"", semconv.OTHER}
"""What no span has: the label of what was none, or of all past a limit."""


@pytest.mark.parametrize("expression", LINKED)
def test_each_line_has_spans(expression: Expression, weaver: Asked) -> None:
    lines = [
        {key: series.get(label(key), "") for key in expression.by}
        for series in weaver.series(expression.text)
    ]
    named = [line for line in lines if not UNNAMED & {*_of_spans(line).values()}]
    assert named or expression.text.startswith("clamp_min(")  # none was slow
    for line in named:
        search = search_for(expression, line)
        assert search is not None
        assert weaver.found(search), search


def _of_spans(line: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in line.items() if key != semconv.SECURITY_RULE_NAME}
