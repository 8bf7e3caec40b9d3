# SPDX-License-Identifier: Apache-2.0
"""The queries of ``docs/monitoring.md`` ask for what there is: its series, labels, values, buckets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent_kernel_otel import semconv

PAGE = (Path(__file__).parent.parent / "docs" / "monitoring.md").read_text(encoding="utf-8")
IN_TABLE = [
    query
    for row in re.findall(r"^\| \[.+\]\(#.+?\) \|(.+)\|$", PAGE, re.MULTILINE)
    for query in re.findall(r"`(.+?)`", row)
]
QUERIES = [*IN_TABLE, *re.findall(r"^```promql\n(.+?)\n```$", PAGE, re.MULTILINE | re.DOTALL)]
OF_PROMETHEUS = {"le", "job", "instance"}


def series() -> dict[str, semconv.MetricDefinition]:
    """Metrics by the names of their series."""
    return {
        metric.prometheus_name + suffix: metric
        for metric in semconv.METRICS.values()
        for suffix in (("_bucket", "_count", "_sum") if metric.bounds else ("",))
    }


def labels(metric: semconv.MetricDefinition) -> dict[str, semconv.AttributeDefinition]:
    """Attributes of a metric by the names of their labels."""
    keys = (*metric.attributes, semconv.SYSTEM) if metric.of_kernel else metric.attributes
    return {re.sub(r"\W", "_", key): semconv.ATTRIBUTES[key] for key in keys}


def selectors(query: str) -> list[tuple[str, str]]:
    """Each metric of a query, with the matchers of its labels."""
    bare = re.sub(r"\b(by|on|ignoring) \([^)]*\)", "", query)  # these have labels only
    return re.findall(r"\b((?:agent_kernel|gen_ai)_\w+)(?:\{([^}]*)\})?", bare)


def test_the_page_answers_each_question_of_its_table_in_a_section() -> None:
    rows = re.findall(r"^\| \[(.+)\]\(#", PAGE, re.MULTILINE)
    assert len(IN_TABLE) == len(rows)
    assert {f"## {question}" for question in rows} <= set(PAGE.splitlines())


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_names_series_labels_and_values_that_there_are(query: str) -> None:
    asked = [(series()[name], matchers) for name, matchers in selectors(query)]
    assert asked
    for metric, matchers in asked:
        for label, operator, value in re.findall(r'(\w+)(=~|!=|=)"(.*?)"', matchers):
            if label == "le":
                assert float(value.removesuffix(r"(\\.0)?")) in metric.bounds
                continue
            definition = labels(metric)[label]
            values = value.split("|") if operator == "=~" else [value]
            assert {*values} <= {*(definition.values or (*definition.known, semconv.OTHER))}
    for by, name in re.findall(r"\bby \(([^)]*)\) \((?:\w+\()?(\w+)", query):
        assert set(by.split(", ")) <= {*labels(series()[name]), *OF_PROMETHEUS}


@pytest.mark.parametrize("query", QUERIES)
def test_what_only_rises_is_asked_for_by_its_rate_before_it_is_added_up(query: str) -> None:
    for name, metric in series().items():
        asked = re.findall(rf"\b{name}\b", query)
        rated = re.findall(rf"\b(?:rate|increase)\({name}\b(?:{{[^}}]*}})?\[\d+[mhd]\]", query)
        if metric.instrument == "counter":  # whether there is one at all
            rated += re.findall(rf"\bcount by \([^)]*\) \({name}\b", query)
        assert len(rated) == (len(asked) if metric.instrument in {"counter", "histogram"} else 0)


def test_every_metric_of_ours_answers_a_question() -> None:
    asked = {series()[name].name for query in QUERIES for name, _ in selectors(query)}
    assert asked == set(semconv.METRICS) - {semconv.EXECUTE_TOOL_DURATION.name}
