# SPDX-License-Identifier: Apache-2.0
"""What must be told of one operation: a span tree, counts, values of histograms, and events."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

Series = tuple[str | None, ...]
"""Name of a metric, and the values of its attributes."""
Labels = tuple[str | None, ...]


@dataclass
class SpanTold:
    """One span: its name, whether it ends as an error, and attributes that it must have.

    An attribute of ``None`` must be absent.
    """

    name: str
    failed: bool
    attributes: dict[str, Any]


@dataclass
class Told:
    """What one operation must be told by.

    Attributes:
        kernel: Name of the kernel.
        root: Its span; ``None`` where it must have none.
        children: The spans below it.
        counts: What it adds to which series.
        observations: Metric, labels and milliseconds of what it adds to histograms.
        events: Name and severity of log events.
    """

    kernel: str
    root: SpanTold | None = None
    children: list[SpanTold] = field(default_factory=list)
    counts: Counter[Series] = field(default_factory=Counter)
    observations: list[tuple[str, Labels, float]] = field(default_factory=list)
    events: Counter[tuple[str, str]] = field(default_factory=Counter)

    def count(self, metric: str, *labels: str | None, times: int = 1) -> None:
        series = (f"agent_kernel.{metric}", *labels)
        self.counts[series] += times

    def observe(self, metric: str, nanoseconds: int, *labels: str | None) -> None:
        self.observations.append((f"agent_kernel.{metric}", labels, nanoseconds / 1e6))
