# SPDX-License-Identifier: Apache-2.0
"""Metrics as a table: the latest value of every series."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from agent_kernel_otel import semconv
from agent_kernel_otel.console.records import attributes_of

if TYPE_CHECKING:
    from agent_kernel_otel.console.glyphs import Glyphs
    from agent_kernel_otel.console.series import Series

MAX_ROWS: Final = 500
"""Series shown; the rest is counted."""

_PREFIX: Final = "agent_kernel."


def build_metrics_table(every: list[Series], glyphs: Glyphs) -> tuple[Table, str]:
    """Builds the table.

    Counters that are still 0 are left out: instrumentation starts them at 0 for alerts' sake.

    Args:
        every: The series, in the order to show them.
        glyphs: The symbols to use.

    Returns:
        The table, and a line about what it leaves out, empty if that is nothing.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    table.add_column("metric", overflow="fold", no_wrap=True)
    table.add_column("attributes", overflow="fold")
    table.add_column("value", justify="right", overflow="fold", no_wrap=True)
    table.add_column("unit", overflow="fold")
    services = {series.service for series in every}
    instances = {(series.service, series.instance) for series in every}
    at_zero = [series for series in every if series.monotonic and not _number(series.point)]
    telling = [series for series in every if not (series.monotonic and not _number(series.point))]
    for series in telling[:MAX_ROWS]:
        labels = _labels(series, glyphs)
        if len(instances) > len(services) and series.instance:
            labels = [f"instance={glyphs.clean(series.instance, 8)}", *labels]
        if len(services) > 1:
            labels = [f"service={glyphs.clean(series.service, 40)}", *labels]
        unit = glyphs.clean(series.unit, 20)
        table.add_row(
            Text(glyphs.clean(series.name), "bold"),
            Text(", ".join(labels), "dim"),
            Text(_value(series, glyphs)),
            # Braces mean "a count of these".
            Text(unit[1:-1] if unit.startswith("{") and unit.endswith("}") else unit, "dim"),
        )
    notes = []
    if len(telling) > MAX_ROWS:
        notes.append(f"{len(telling) - MAX_ROWS:,} more series")
    if at_zero:
        notes.append(f"{len(at_zero)} counter{'s' if len(at_zero) != 1 else ''} still at 0")
    return table, f"not shown: {', '.join(notes)}" if notes else ""


def _labels(series: Series, glyphs: Glyphs) -> list[str]:
    return [
        f"{glyphs.clean(key.removeprefix(_PREFIX), 60)}={glyphs.value(value, 60)}"
        for key, value in sorted(attributes_of(series.point.attributes).items())
        if key != semconv.SYSTEM
    ]


def _value(series: Series, glyphs: Glyphs) -> str:
    point = series.point
    if series.kind in ("sum", "gauge"):
        return _format(_number(point))
    parts = [f"n={point.count:,}"]
    # Not Python's division: the sum is an untrusted float, the count an untrusted integer.
    if point.count and math.isfinite(point.sum):
        parts.append(f"mean={_format(point.sum / point.count)}")
    if series.kind == "histogram":
        for share in (0.5, 0.95):
            quantile = _quantile(point, share)
            if quantile is not None:
                parts.append(f"p{share * 100:.0f}~{_format(quantile)}")
    if series.kind == "summary":
        parts += [
            f"p{entry.quantile * 100:g}={_format(entry.value)}"
            for entry in point.quantile_values[:5]
        ]
    elif point.HasField("max"):
        parts.append(f"max={_format(point.max)}")
    return glyphs.clean("  ".join(parts))


def _quantile(point: Any, share: float) -> float | None:
    """Estimates a quantile within its bucket; None where the buckets do not tell."""
    bounds, counts = list(point.explicit_bounds), list(point.bucket_counts)
    if not point.count or not bounds or len(counts) != len(bounds) + 1:
        return None
    low = point.min if point.HasField("min") else min(0.0, bounds[0])
    high = point.max if point.HasField("max") else bounds[-1]
    edges = [low, *(min(max(bound, low), high) for bound in bounds), max(high, low)]
    wanted, seen = share * sum(counts), 0
    for (lower, upper), count in zip(pairwise(edges), counts, strict=True):
        if count and seen + count >= wanted:
            return float(lower + (upper - lower) * (wanted - seen) / count)
        seen += count
    return None


def _number(point: Any) -> float:
    field = point.WhichOneof("value") if hasattr(point, "as_int") else None
    return getattr(point, field) if field else 0


def _format(number: float) -> str:
    if isinstance(number, int):
        return f"{number:,}"
    return f"{number:,.0f}" if abs(number) >= 10_000 else f"{number:.4g}"
