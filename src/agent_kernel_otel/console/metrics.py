# SPDX-License-Identifier: Apache-2.0
"""Metrics as lines of text: the latest value of every series, below the name of its metric."""

from __future__ import annotations

import math
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from agent_kernel_otel import semconv
from agent_kernel_otel.console.glyphs import GLUE
from agent_kernel_otel.console.records import attributes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent_kernel_otel.console.drawing import Line
    from agent_kernel_otel.console.glyphs import Glyphs
    from agent_kernel_otel.console.series import Series

MAX_SERIES: Final = 500
"""Series shown; the rest is counted."""

_PREFIX: Final = "agent_kernel."
_COUNT: Final = "n="
_INDENT: Final = "  "
_GAP: Final = "  "
_WIDEST_RAIL: Final = 12
_SHORTEST_INSTANCE: Final = 8
_LONGEST: Final = 1e15


def draw_metrics(every: list[Series], glyphs: Glyphs) -> Iterator[Line]:
    """Draws each metric's name and unit, and below it its series: the value, then what it is of.

    Counters that are still 0 are left out: instrumentation starts them at 0 for alerts' sake.

    Args:
        every: The series.
        glyphs: The symbols to use.

    Yields:
        The lines, in order.
    """
    telling = [series for series in every if not (series.monotonic and not _number(series.point))]
    shown = sorted(telling, key=lambda series: (series.name, series.unit))[:MAX_SERIES]
    senders = _senders(every, glyphs)
    for heading, group in groupby(shown, lambda series: _heading(series, glyphs)):
        yield "", "", heading
        rows = sorted(
            (
                [*senders[series.service, series.instance], *_labels(series, glyphs)],
                _value(series),
            )
            for series in group
        )
        width = max(len(value) for _, value in rows)
        below_labels = len(_INDENT) + width + len(_GAP)
        rail = below_labels if below_labels <= _WIDEST_RAIL else 2 * len(_INDENT)
        for labels, value in rows:
            is_distribution = value.startswith(_COUNT)
            line = Text((str.ljust if is_distribution else str.rjust)(value, width, GLUE))
            if labels:
                line = line.append(_GAP).append(", ".join(labels), "dim")
            yield _INDENT, " " * rail, line
    notes = []
    if len(telling) > MAX_SERIES:
        notes.append(f"{len(telling) - MAX_SERIES:,} more series")
    if at_zero := len(every) - len(telling):
        notes.append(f"{at_zero} counter{'s' if at_zero != 1 else ''} still at 0")
    if notes:
        yield "", "", Text(f"not shown: {', '.join(notes)}", "dim")


def _heading(series: Series, glyphs: Glyphs) -> Text:
    heading = Text(glyphs.clean(series.name), "bold")
    unit = glyphs.clean(series.unit)
    if unit.startswith("{") and unit.endswith("}"):
        unit = unit[1:-1]  # braces mean "a count of these"
    return heading.append(f" ({unit})", "not bold dim") if unit else heading


def _senders(every: list[Series], glyphs: Glyphs) -> dict[tuple[str, str], list[str]]:
    """What tells the processes apart that have sent them: nothing where there is but one."""
    senders = {(series.service, series.instance) for series in every}
    services = {service for service, _ in senders}
    instances = {instance for _, instance in senders}
    length = _SHORTEST_INSTANCE
    while len({instance[:length] for instance in instances}) < len(instances):
        length += 1
    return {
        (service, instance): [
            *([f"service={glyphs.clean(service)}"] if len(services) > 1 else []),
            *(
                [f"instance={glyphs.clean(instance, length)}"]
                if instance and len(senders) > len(services)
                else []
            ),
        ]
        for service, instance in senders
    }


def _labels(series: Series, glyphs: Glyphs) -> list[str]:
    return [
        f"{glyphs.clean(key.removeprefix(_PREFIX))}={glyphs.value(value)}"
        for key, value in sorted(attributes_of(series.point.attributes).items())
        if key != semconv.SYSTEM
    ]


def _value(series: Series) -> str:
    point = series.point
    if series.kind in ("sum", "gauge"):
        return _format(_number(point))
    parts = [f"{_COUNT}{point.count:,}", *(quantiles := _quantiles(series))]
    # Not Python's division: the sum is an untrusted float, the count an untrusted integer.
    if not quantiles and point.count and math.isfinite(point.sum):
        parts.append(f"mean={_format(point.sum / point.count)}")
    if series.kind != "summary" and point.HasField("max"):
        parts.append(f"max={_format(point.max)}")
    return GLUE.join(parts)


def _quantiles(series: Series) -> list[str]:
    point = series.point
    if series.kind == "summary":
        return [
            f"p{entry.quantile * 100:g}={_format(entry.value)}"
            for entry in point.quantile_values[:5]
        ]
    if series.kind != "histogram":
        return []
    estimates = [(share, _quantile(point, share)) for share in (0.5, 0.95)]
    return [
        f"p{share * 100:.0f}~{_format(value)}" for share, value in estimates if value is not None
    ]


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
    return f"{number:,.0f}" if 10_000 <= abs(number) < _LONGEST else f"{number:.4g}"
