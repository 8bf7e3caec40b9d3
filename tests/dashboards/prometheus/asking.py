# SPDX-License-Identifier: Apache-2.0
"""Asks Prometheus what Grafana would."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent_kernel_otel.dashboards.explore import Search
from tests.dashboards.packaged import Json, chosen, filled
from tests.prometheus.server import Prometheus
from tests.support.otlp_records import Item

WINDOW = "1m"
SHOWN = "10m"
ALL: Mapping[str, str] = dict.fromkeys(
    ("job", "instance", "capability", "session", "operation"), ".*"
)


@dataclass(frozen=True)
class Asked:
    """A Prometheus, the time that a dashboard asks it for, and the spans of the same run."""

    prometheus: Prometheus
    time: float
    spans: Sequence[Item] = ()

    def values(self, panel: Json, expression: str, variables: Mapping[str, str]) -> list[float]:
        """The numbers that a panel shows for a query."""
        text = filled(expression, variables, window=WINDOW, shown=SHOWN)
        if panel["type"] != "timeseries":
            answer = self.prometheus.ask("query", query=text, time=f"{self.time}")
            shown = [series["value"] for series in answer["result"]]
        else:
            begin, end = f"{self.time - 5}", f"{self.time}"
            answer = self.prometheus.ask("query_range", query=text, start=begin, end=end, step="1")
            shown = [value for series in answer["result"] for value in series["values"]]
        values = [float(value) for _, value in shown]
        return [value for value in values if not math.isnan(value)]

    def series(self, expression: str) -> list[dict[str, str]]:
        """The labels of what a query counts now, and is not 0."""
        text = filled(expression, ALL, window=WINDOW, shown=SHOWN)
        found = self.prometheus.ask("query", query=text, time=f"{self.time}")["result"]
        return [one["metric"] for one in found if float(one["value"][1]) > 0]

    def found(self, search: Search) -> list[Item]:
        """The spans that a search finds."""
        return [
            span
            for span in self.spans
            if search.span in (None, span.name)
            and all(
                span.attributes.get(key, 0) >= value
                if isinstance(value, int) and not isinstance(value, bool)
                else span.attributes.get(key) == value
                for key, value in search.filters.items()
            )
        ]

    def exemplars(self, expression: str) -> list[Json]:
        """The exemplars of a query."""
        text = filled(expression, ALL, window=WINDOW, shown=SHOWN)
        found: list[Json] = self.prometheus.ask("query_exemplars", query=text, start="0", end="9e9")
        return found

    def options(self, dashboard: Json) -> dict[str, list[str]]:
        """What each variable lets a viewer choose from."""
        offered = {}
        for name, variable in chosen(dashboard).items():
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
            assert found
            selector = filled(found[1], ALL, window=WINDOW, shown=SHOWN)
            offered[name] = self.prometheus.ask(f"label/{found[2]}/values", **{"match[]": selector})
        return offered

    def all_by_name(self, dashboard: Json) -> dict[str, str]:
        """What Grafana puts in where each option is chosen, one by one."""
        return {
            name: f"({'|'.join(map(_escaped, options))})"
            for name, options in self.options(dashboard).items()
        }


def _escaped(value: str) -> str:
    # As Grafana does for Prometheus: for the expression, and for the string that it is in.
    return re.sub(r"([\\^$*+?.()|{}\[\]])", r"\\\\\1", value)
