# SPDX-License-Identifier: Apache-2.0
"""What is fixed of metrics on the wire, whatever was measured: their names, kinds and labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.otlp_records import Item, attributes

Shape = dict[str, Any]

_TEMPORALITIES = {
    "AGGREGATION_TEMPORALITY_CUMULATIVE": "cumulative",
    "AGGREGATION_TEMPORALITY_DELTA": "delta",
}


def of_page(page: str) -> dict[str, Shape]:
    """Of each metric of a page its type, samples, labels and the upper edges of its buckets.

    Without ``target_info``, which is as the machine is.
    """
    shapes = {}
    for family in text_string_to_metric_families(page):
        if family.name == "target_info":
            continue
        shape: Shape = {
            "type": family.type,
            "samples": sorted({sample.name for sample in family.samples}),
            "labels": sorted(set().union(*(sample.labels for sample in family.samples)) - {"le"}),
        }
        edges = [sample.labels["le"] for sample in family.samples if "le" in sample.labels]
        if edges:
            shape["le"] = list(dict.fromkeys(edges))
        # The parser takes away what makes a counter's name one.
        shapes[family.name + "_total" * (family.type == "counter")] = shape
    return dict(sorted(shapes.items()))


def of_otlp(metrics: Iterable[Item]) -> dict[str, Shape]:
    """Of each metric that was received its unit, kind, temporality, attributes and bounds."""
    shapes: dict[str, Shape] = {}
    for metric in metrics:
        kind = next(k for k in ("sum", "gauge", "histogram") if k in metric.raw)
        data = metric.raw[kind]
        shape: Shape = {"unit": metric.raw.get("unit", ""), "kind": kind, "scope": metric.scope}
        if kind == "sum":
            shape["monotonic"] = data.get("isMonotonic", False)
        if kind != "gauge":
            shape["temporality"] = _TEMPORALITIES[data["aggregationTemporality"]]
        if kind == "histogram":
            shape["bounds"] = data["dataPoints"][0]["explicitBounds"]
        before = shapes.setdefault(metric.name, {**shape, "attributes": []})
        keys = set(before["attributes"]).union(*map(attributes, metric.points))
        before["attributes"] = sorted(keys)
        assert before == {**before, **shape}, f"{metric.name} changes its shape"
    return dict(sorted(shapes.items()))
