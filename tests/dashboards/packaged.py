# SPDX-License-Identifier: Apache-2.0
"""The shipped dashboards as Grafana reads them, and their queries as Prometheus is asked them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from agent_kernel_otel import semconv
from agent_kernel_otel.dashboards import kelpie
from agent_kernel_otel.dashboards.command import packaged

Json = dict[str, Any]

FILES: Final = packaged()
DASHBOARDS: Final[dict[str, Json]] = {
    name.removesuffix(".json"): json.loads(text) for name, text in FILES.items()
}
WEAVER: Final = [name for name in DASHBOARDS if name.startswith("weaver-")]
KELPIE: Final = [name for name in DASHBOARDS if name.startswith("kelpie")]

ALSO: Final = {"up"}
"""Series that are in no reference of ours, nor Kelpie's."""


def panels(dashboard: Json) -> list[Json]:
    """What shows something: all but headings."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions(dashboard: Json) -> list[tuple[Json, str]]:
    """Each query, with its panel."""
    return [(panel, q["expr"]) for panel in panels(dashboard) for q in panel["targets"]]


def variables(dashboard: Json) -> dict[str, Json]:
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}


def chosen(dashboard: Json) -> dict[str, Json]:
    """Variables whose values come of Prometheus."""
    return {n: v for n, v in variables(dashboard).items() if v["type"] == "query"}


def metrics() -> dict[str, semconv.MetricDefinition]:
    """Metrics of the references, by the names of their series."""
    references = (*semconv.METRICS.values(), *kelpie.METRICS)
    return {
        metric.prometheus_name + suffix: metric
        for metric in references
        for suffix in (("_bucket", "_count", "_sum") if metric.bounds else ("",))
    }


def selectors(expression: str) -> Iterator[tuple[str, str]]:
    """The series of a query, with the matchers of their labels: all of them have some."""
    yield from re.findall(r"\b([a-zA-Z_:]\w*)\{([^}]*)\}", expression)


def filled(expression: str, values: Mapping[str, str], *, window: str, shown: str) -> str:
    """A query as Grafana sends it."""
    values = {**values, "__rate_interval": window, "__range": shown}
    text = re.sub(r"\$(\w+)", lambda found: values[found[1]], expression)
    assert "$" not in text
    return text
