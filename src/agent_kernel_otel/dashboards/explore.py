# SPDX-License-Identifier: Apache-2.0
"""Links from a panel to the traces of what it shows, in Tempo and in Jaeger.

They open Grafana's Explore with a search for spans. A point of a histogram leads to one trace by its
exemplar; that link is a setting of the data source, and not of a dashboard.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from agent_kernel_otel import semconv

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent_kernel_otel.dashboards.promql import Expression

TEMPO: Final = "tempo"
JAEGER: Final = "jaeger"
BACKENDS: Final[Mapping[str, str]] = {TEMPO: "Tempo", JAEGER: "Jaeger"}
"""Types of data sources for traces, which are the names of their variables, and what they are called."""

_VARIABLE: Final = re.compile(r"(\$\{[^}]+\})")


@dataclass(frozen=True)
class Search:
    """What spans to search for.

    Attributes:
        filters: Values of their attributes; a number is the least that they must be.
        span: Their name, if it is always the same.
    """

    filters: Mapping[str, str | bool | int] = field(default_factory=dict)
    span: str | None = None


_INVOKED: Final = {semconv.GEN_AI_OPERATION_NAME: semconv.EXECUTE_TOOL}
"""What invocations have under each ``span_naming``, dry runs excepted."""

_SEARCHES: Final[Mapping[str, Search]] = {
    metric.name: search
    for metrics, search in (
        ((semconv.INVOCATIONS, semconv.INVOCATION_DURATION), Search(_INVOKED)),
        ((semconv.EXECUTE_TOOL_DURATION,), Search(_INVOKED)),
        ((semconv.METRIC_TIME_TO_FIRST_CHUNK,), Search({semconv.STREAM: True})),
        ((semconv.FALLBACKS,), Search({semconv.FALLBACK: True})),
        ((semconv.METRIC_REDACTIONS,), Search({**_INVOKED, semconv.REDACTIONS: 1})),
        ((semconv.DOWNGRADES,), Search({semconv.DOWNGRADED: True})),
        ((semconv.DRY_RUNS,), Search({semconv.DRY_RUN: True})),
        ((semconv.BUDGET_CONSUMED, semconv.BUDGET_LIMIT), Search(_INVOKED)),
        ((semconv.BUDGET_EXHAUSTIONS,), Search({semconv.ERROR_TYPE: "BudgetExhausted"})),
        ((semconv.GRANTS,), Search(span=semconv.GRANT)),
        ((semconv.HANDLES_EXPANDED,), Search(span=semconv.EXPAND)),
        ((semconv.DRIVER_ATTEMPTS, semconv.DRIVER_DURATION), Search(span=semconv.DRIVER)),
        ((semconv.FIREWALL_DURATION,), Search(span=semconv.FIREWALL)),
        ((semconv.POLICY_DURATION,), Search(span=semconv.POLICY)),
        ((semconv.POLICY_DENIALS,), Search()),
    )
    for metric in metrics
}
"""The spans of what a metric counts or measures; of the others there are none that have ended."""


def search_for(expression: Expression, values: Mapping[str, str]) -> Search | None:
    """The spans of what a query shows, if there are any.

    What a metric tells apart need not be on one span: a denial's phase is on the decision, its
    capability on the operation. As much as one kind of span has is searched for.

    Args:
        expression: The query.
        values: Where to take the values of the attributes from by which its series are told apart.
    """
    search = _SEARCHES.get(expression.metric)
    if search is None:
        return None
    fixed = {
        key: value
        for key, value in expression.where.items()
        # On spans a capability is what was asked for.
        if not value.startswith("!") and "|" not in value and value != semconv.OTHER
    }
    told_apart = {
        key: values[key]
        for key in expression.by
        # Most series have no rule, and a search for none finds nothing.
        if key != semconv.SECURITY_RULE_NAME or key in expression.where
    }
    wanted = {**told_apart, **fixed}
    if search.span:
        kinds = [search.span]
    elif semconv.SECURITY_RULE_NAME in told_apart:
        kinds = [semconv.POLICY]
    else:  # a refused expansion has no span of the decision
        kinds = [semconv.GRANT, semconv.INVOKE, semconv.EXPAND]
    together = max(([key for key in wanted if _may_have(kind, key)] for kind in kinds), key=len)
    filters = {**search.filters, **{key: wanted[key] for key in together}}
    return Search(filters, search.span) if filters or search.span else None


def link(backend: str, search: Search) -> str:
    """The address of a search."""
    query = _traceql(search) if backend == TEMPO else _tags(search)
    pane = {
        "datasource": f"${{{backend}}}",
        "queries": [
            {"refId": "A", "datasource": {"type": backend, "uid": f"${{{backend}}}"}, **query}
        ],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    panes = json.dumps({"traces": pane}, separators=(",", ":"))
    # Grafana fills in variables before the browser reads the address.
    parts = _VARIABLE.split(panes)
    address = "".join(part if _VARIABLE.match(part) else quote(part, safe="") for part in parts)
    return f"/explore?schemaVersion=1&panes={address}"


def _traceql(search: Search) -> dict[str, Any]:
    conditions = [f'name = "{search.span}"'] if search.span else []
    for key, value in search.filters.items():
        if isinstance(value, bool):
            conditions.append(f"span.{key} = {str(value).lower()}")
        elif isinstance(value, int):
            conditions.append(f"span.{key} >= {value}")
        else:
            conditions.append(f'span.{key} = "{value}"')
    return {"queryType": "traceql", "query": f"{{ {' && '.join(conditions)} }}", "limit": 20}


def _tags(search: Search) -> dict[str, Any]:
    # Jaeger searches in one service only, and for equal values only.
    query: dict[str, Any] = {"queryType": "search", "service": "${job}", "limit": 20}
    if search.span:
        query["operation"] = search.span
    tags = [
        f"{key}={str(value).lower()}" if isinstance(value, bool) else f'{key}="{value}"'
        for key, value in search.filters.items()
        if isinstance(value, (bool, str))
    ]
    return {**query, "tags": " ".join(tags)}


def _may_have(span: str, key: str) -> bool:
    """Whether a kind of span that there is by default may have an attribute."""
    attribute = semconv.ATTRIBUTES.get(key)
    return attribute is not None and span in attribute.on and semconv.SPANS[span].level == "info"
